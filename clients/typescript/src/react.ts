/** React hooks: login, the user and the user's plans. They render on servers too, as `loading`. */
import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useEffect,
  useState,
  useSyncExternalStore,
} from "react";
import { Client, type ClientOptions, type LoginOptions } from "./client.js";
import { LoginRequired } from "./errors.js";
import { PendingLogins } from "./login.js";
import type * as models from "./models.js";
import type { Session } from "./session.js";
import { LocalStorageStore, type TokenStore } from "./tokens.js";

/** Properties of the provider. Later changes of them have no effect. */
export interface NestProviderProps extends Omit<ClientOptions, "internalKey"> {
  /** Address of the Nest, such as `https://nest.example.com`. */
  url: string;
  /** ID of the client. */
  clientId: string;
  /** Page that the link in the mail leads to, one of the client's redirect URIs. It renders this provider, too. */
  redirectUri: string;
  /** Store of the tokens. Default: `LocalStorageStore`. */
  store?: TokenStore;
  children?: ReactNode;
}

/** Whether somebody is logged in. It is `loading` on servers, and until the tokens are loaded or a login is finished. */
export type Status = "loading" | "anonymous" | "authenticated";

/** Steps of a login: `sent` waits for the link or the typed code. */
export type LoginStep = "idle" | "sending" | "sent" | "finishing";

interface State {
  readonly status: Status;
  readonly userId: string | null;
  readonly step: LoginStep;
  readonly email: string | null;
  readonly loginError: Error | null;
}

/** Result of a read. */
export interface Loaded<Data> {
  /** The data, or null while there is none and for an anonymous person. It stays while it is loaded again. */
  readonly data: Data | null;
  readonly error: Error | null;
  readonly loading: boolean;
}

const LOADING: State = { status: "loading", userId: null, step: "idle", email: null, loginError: null };
const NOTHING: Loaded<never> = { data: null, error: null, loading: false };

/** State with listeners, for `useSyncExternalStore`. */
class Observable<Value> {
  readonly #listeners = new Set<() => void>();

  constructor(protected value: Value) {}

  readonly get = (): Value => this.value;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  protected set(value: Value): void {
    this.value = value;
    for (const listener of this.#listeners) listener();
  }
}

/** Data of the session's user, loaded once for all components that use it. */
class Query<Data> extends Observable<Loaded<Data>> {
  #loads = 0;
  #userId: string | null = null;

  constructor(
    readonly session: Session,
    readonly read: (session: Session) => Promise<Data>,
  ) {
    super(NOTHING);
  }

  /** Load the data if this user's has not been loaded. */
  want(userId: string | null): void {
    if (userId === this.#userId) return;
    this.#userId = userId;
    this.#loads += 1; // the data of the user before may still be on the way
    if (userId === null) this.set(NOTHING);
    else void this.load(null);
  }

  /** Load the data, and return when it is there or has failed. */
  async load(data: Data | null = this.value.data): Promise<void> {
    if (this.#userId === null) return;
    const load = ++this.#loads;
    const finish = (loaded: Loaded<Data>): void => {
      if (load === this.#loads) this.set(loaded);
    };
    this.set({ data, error: null, loading: true });
    try {
      finish({ data: await this.read(this.session), error: null, loading: false });
    } catch (error) {
      finish({ data, error: asError(error), loading: false });
    }
  }
}

class Nest extends Observable<State> {
  readonly client: Client;
  readonly session: Session;
  readonly user: Query<models.UserView>;
  readonly subscription: Query<models.SubscriptionStateView>;
  readonly customerState: Query<models.CustomerStateView>;
  readonly #clientId: string;
  readonly #redirectUri: string;
  readonly #logins = new PendingLogins();
  #redirectSeen = false;

  constructor({ url, clientId, redirectUri, store, ...options }: NestProviderProps) {
    super(LOADING);
    this.client = new Client(url, options);
    this.session = this.client.session(store ?? new LocalStorageStore());
    this.user = new Query(this.session, (session) => session.getUser());
    this.subscription = new Query(this.session, (session) => session.getSubscriptionStatus());
    this.customerState = new Query(this.session, (session) => session.getCustomerState());
    this.#clientId = clientId;
    this.#redirectUri = redirectUri;
  }

  /** Load the tokens, finish the login whose redirect this page is, and follow changes. Return what ends it. */
  start(): () => void {
    const end = this.session.subscribe(() => void this.#load());
    void this.#finishRedirect();
    return end;
  }

  async order(email: string, options: Partial<LoginOptions> = {}): Promise<void> {
    this.#change({ step: "sending", email, loginError: null });
    try {
      const login = { clientId: this.#clientId, redirectUri: this.#redirectUri, ...options };
      this.#logins.add(await this.client.startLogin(email, login));
      this.#change({ step: "sent" });
    } catch (error) {
      this.#change({ step: "idle", loginError: asError(error) });
    }
  }

  async finish(code: string): Promise<void> {
    const pending = this.#logins.newest();
    if (pending === null) return this.#change({ step: "idle", loginError: new LoginRequired("Order a mail first.") });
    this.#change({ step: "finishing", loginError: null });
    try {
      await this.session.finishLogin(pending, { code });
      this.#logins.clear();
      this.#change({ step: "idle" });
    } catch (error) {
      this.#change({ step: "sent", loginError: asError(error) }); // the person may type it again
    }
  }

  cancel(): void {
    this.#change({ step: "idle", email: null, loginError: null });
  }

  async #finishRedirect(): Promise<void> {
    if (this.#redirectSeen) return; // an effect may run twice
    this.#redirectSeen = true;
    const pending = this.#logins.find(location.href);
    if (pending === null) return this.#load();
    const url = new URL(location.href);
    this.#change({ step: "finishing", loginError: null });
    try {
      await this.session.finishLogin(pending, { url });
      this.#logins.clear();
      this.#change({ step: "idle" });
    } catch (error) {
      this.#change({ step: "idle", loginError: asError(error) });
    }
    url.searchParams.delete("code");
    url.searchParams.delete("state");
    history.replaceState(history.state, "", url); // a reload would redeem the code again
    await this.#load();
  }

  async #load(): Promise<void> {
    let userId: string | null;
    try {
      userId = (await this.session.store.load())?.userId ?? null;
    } catch (error) {
      return this.#change({ status: "anonymous", userId: null, loginError: asError(error) });
    }
    const status = userId === null ? "anonymous" : "authenticated";
    if (status !== this.value.status || userId !== this.value.userId) this.#change({ status, userId });
  }

  #change(changes: Partial<State>): void {
    this.set({ ...this.value, ...changes });
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

const Context = createContext<Nest | null>(null);

/** Provide a Nest to the hooks of its children. On the page of the redirect it finishes the login. */
export function NestProvider(props: NestProviderProps): ReactElement {
  const [nest] = useState(() => {
    const { children: _, ...options } = props;
    return new Nest(options);
  });
  useEffect(() => nest.start(), [nest]);
  return createElement(Context.Provider, { value: nest }, props.children);
}

function useContextNest(): [Nest, State] {
  const nest = useContext(Context);
  if (nest === null) throw new Error("Render the component in a <NestProvider>.");
  return [nest, useSyncExternalStore(nest.subscribe, nest.get, () => LOADING)];
}

/** Whether somebody is logged in, and the client and session for calls. */
export function useNest(): {
  readonly status: Status;
  /** ID of the user, or null. */
  readonly userId: string | null;
  readonly client: Client;
  readonly session: Session;
  /** End the session. */
  readonly logOut: () => Promise<void>;
} {
  const [nest, { status, userId }] = useContextNest();
  const logOut = useCallback(() => nest.session.logOut(), [nest]);
  return { status, userId, client: nest.client, session: nest.session, logOut };
}

/** A login by magic link or typed code. Its errors are in `error`; `start` and `finish` do not throw them. */
export function useLogin(): {
  readonly step: LoginStep;
  /** Address that the mail was sent to, or null. */
  readonly email: string | null;
  readonly error: Error | null;
  /** Mail a link and a code to an address. */
  readonly start: (email: string, options?: Partial<LoginOptions>) => Promise<void>;
  /** Log in with the code that the person typed. */
  readonly finish: (code: string) => Promise<void>;
  /** Go back to the first step, for another address. */
  readonly cancel: () => void;
} {
  const [nest, { step, email, loginError }] = useContextNest();
  const start = useCallback((to: string, options?: Partial<LoginOptions>) => nest.order(to, options), [nest]);
  const finish = useCallback((code: string) => nest.finish(code), [nest]);
  const cancel = useCallback(() => nest.cancel(), [nest]);
  return { step, email, error: loginError, start, finish, cancel };
}

/** Data of the user, with the function that loads it again. */
export type UserData<Data> = Loaded<Data> & { readonly reload: () => Promise<void> };

function useQuery<Data>(choose: (nest: Nest) => Query<Data>): UserData<Data> {
  const [nest, { status, userId }] = useContextNest();
  const query = choose(nest);
  const loaded = useSyncExternalStore(query.subscribe, query.get, (): Loaded<Data> => NOTHING);
  useEffect(() => query.want(userId), [query, userId]);
  const reload = useCallback(() => query.load(), [query]);
  const waiting = status === "loading" || (userId !== null && loaded === NOTHING);
  return { ...loaded, loading: loaded.loading || waiting, reload };
}

/** The user who is logged in. */
export function useUser(): UserData<models.UserView> {
  return useQuery((nest) => nest.user);
}

/** The state of the user's subscription: its status, whether the user has access, and what the user has to do. */
export function useSubscription(): UserData<models.SubscriptionStateView> {
  return useQuery((nest) => nest.subscription);
}

/** All plans of the user, and the features that the user has access to. */
export function useCustomerState(): UserData<models.CustomerStateView> {
  return useQuery((nest) => nest.customerState);
}
