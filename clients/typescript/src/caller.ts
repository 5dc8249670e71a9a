import { VERSION } from "./version.js";

/** A method or a route of Nest. */
export interface Operation {
  /** Path, with the names of its parameters in braces. */
  readonly path: string;
  /** HTTP method. Default: `POST`. */
  readonly verb?: "POST" | "GET" | "PUT" | "DELETE";
  /** Whether it changes something and takes an idempotency key. */
  readonly command?: boolean;
  /** Whether its responses have an entity tag. */
  readonly tagged?: boolean;
  /** Whether its result is a text instead of a JSON value. */
  readonly text?: boolean;
  /** Whether `user_id` is required, which a session fills in. */
  readonly ofUser?: boolean;
}

/** Options of one call. */
export interface CallOptions {
  /** Key of a command: repeats with it have one effect and one answer. Default: a random one for all attempts. */
  idempotencyKey?: string;
  /** Signal that ends the call, also between attempts. */
  signal?: AbortSignal;
}

/** Options of a call by an owner of applications. */
export interface OwnerOptions extends CallOptions {
  /** Token of the owner. */
  token?: string;
}

/** Base of everything that calls Nest. */
export abstract class Caller {
  protected abstract call<Result>(operation: Operation, fields: object, options?: OwnerOptions): Promise<Result>;

  /** Call a method that only reads by its name, for example one that this release does not know. */
  query<Result = unknown>(method: string, fields: object = {}, options?: CallOptions): Promise<Result> {
    return this.call({ path: methodPath(method) }, fields, options);
  }

  /** Call a method that changes something by its name. */
  command<Result = unknown>(method: string, fields: object = {}, options?: CallOptions): Promise<Result> {
    return this.call({ path: methodPath(method), command: true }, fields, options);
  }
}

/** Return the path of a method. */
export function methodPath(method: string): string {
  return `/1/${VERSION}/${encodeURIComponent(method)}`;
}
