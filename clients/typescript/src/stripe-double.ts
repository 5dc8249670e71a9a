/** Client of the Stripe double of an embedded Nest: its pages, cards, clock and webhooks. */

/** Numbers of test cards. */
export const CARDS = {
  succeeds: "4242 4242 4242 4242",
  declined: "4000 0000 0000 0002",
  needsAuthentication: "4000 0027 6000 3184",
  /** Accepted at first, declined at every payment. */
  declinedLater: "4000 0000 0000 0341",
} as const;

const HOURS = 3_600_000;

/** An object of Stripe's API. */
export type StripeObject = Record<string, unknown> & { id: string };

/** A page did not accept the card; the message is what it says. */
export class CardRefused extends Error {
  override readonly name = "CardRefused";
}

/** How a person fills in a checkout page. */
export interface Payment {
  /** Number of a test card. Default: one that succeeds. */
  card?: string;
  /** Whether the person passes 3D Secure, if the card asks for it. Default: yes. */
  authenticate?: boolean;
  /** Address, where the page asks for one. */
  email?: string;
}

/** What happens to the webhooks of events. */
export interface Disturbance {
  /** Share that is never sent, 0 to 1. Nest finds what it missed at its next sweep, after minutes. */
  lost?: number;
  /** Each waits a random time of up to so many seconds, so that their order changes. */
  shuffled?: number;
  /** Each waits so many seconds. */
  delayed?: number;
  /** How often each is sent. */
  copies?: number;
}

/**
 * A stand-in for a Stripe account.
 *
 * It has its own clock, which only goes forward, and which moves nothing but Stripe: renewals, trials and expiries happen
 * as they fall due, and their webhooks follow. Nest's own clock stays.
 */
export class StripeDouble {
  readonly #apiKey: string;

  /**
   * @param url URL of the double.
   * @param apiKey Its secret key.
   */
  constructor(
    readonly url: string,
    apiKey: string,
  ) {
    this.#apiKey = apiKey;
  }

  /** Return the time of Stripe's clock. */
  async now(): Promise<Date> {
    return new Date((await this.#control<{ now: number }>("GET", "clock")).now * 1000);
  }

  /** Move the clock forward by milliseconds, wait until the webhooks are delivered, and return the new time. */
  async advance(milliseconds: number): Promise<Date> {
    await this.#control("POST", "clock", { advance: milliseconds / 1000 });
    await this.settle();
    return this.now();
  }

  /** Move the clock forward to a time, as `advance`. */
  async advanceTo(at: Date): Promise<Date> {
    return this.advance(Math.max(at.getTime() - (await this.now()).getTime(), 0));
  }

  /**
   * Move the clock to just after the end of a person's trial.
   *
   * @throws RangeError The person has no trial.
   */
  async endTrial(userId: string): Promise<void> {
    const ends = (await this.subscription(userId))["trial_end"];
    if (typeof ends !== "number") throw new RangeError(`${userId} has no trial`);
    await this.advanceTo(new Date(ends * 1000 + 2 * HOURS));
  }

  /** Move the clock to just after the end of the current period of a person's subscription. */
  async renew(userId: string): Promise<void> {
    const { data } = (await this.subscription(userId))["items"] as { data: { current_period_end: number }[] };
    await this.advanceTo(new Date((data[0]?.current_period_end ?? 0) * 1000 + 2 * HOURS));
  }

  /**
   * Fill in and send the form of a checkout page, as a person does, and return where it leads.
   *
   * @throws CardRefused The card was declined, or the authentication failed.
   */
  async pay(url: string, { card = CARDS.succeeds, authenticate = true, email = "" }: Payment = {}): Promise<string> {
    const post = (more: Record<string, string> = {}): Promise<Response> =>
      fetch(url, { method: "POST", body: new URLSearchParams({ card, email, ...more }), redirect: "manual" });
    let response = await post();
    // The page asks for an authentication.
    if (response.status === 200) response = await post({ authentication: authenticate ? "complete" : "fail" });
    const location = response.headers.get("location");
    if (location === null) {
      const said = /role="?alert"?[^>]*>(.*?)<\//s.exec(await response.text());
      throw new CardRefused(said?.[1]?.trim() ?? `status ${response.status}`);
    }
    await this.settle();
    return location;
  }

  /** Replace a person's card by one that is declined at every payment. */
  async declineCard(userId: string): Promise<void> {
    await this.simulate("decline", { customer: (await this.customer(userId)).id });
  }

  /** Replace a person's card by one that works, and pay what is open. */
  async acceptCard(userId: string): Promise<void> {
    await this.simulate("recover", { customer: (await this.customer(userId)).id });
  }

  /** Contest a person's last payment at the bank, and return the dispute. */
  async dispute(userId: string): Promise<StripeObject> {
    return this.simulate("dispute", { subscription: (await this.subscription(userId)).id });
  }

  /** Refund a person's last payment, and return the refund. */
  async refund(userId: string): Promise<StripeObject> {
    return this.simulate("refund", { subscription: (await this.subscription(userId)).id });
  }

  /** Cancel a person's subscription, at the end of the period or now. */
  async cancel(userId: string, { now = false } = {}): Promise<void> {
    await this.simulate("cancel", {
      subscription: (await this.subscription(userId)).id,
      at: now ? "now" : "period_end",
    });
  }

  /**
   * Do something that happens outside Stripe's API, wait until its webhooks are delivered, and return its object.
   *
   * @param action Name of the action, such as `close_dispute`; the README of the Stripe double lists them.
   * @param options Its arguments.
   */
  async simulate(action: string, options: Record<string, unknown>): Promise<StripeObject> {
    const done = await this.#control<StripeObject>("POST", `simulate/${action}`, options);
    await this.settle();
    return done;
  }

  /**
   * Return the customer of a person.
   *
   * @throws RangeError There is none.
   */
  customer(userId: string): Promise<StripeObject> {
    return this.#newest(userId, "customer");
  }

  /**
   * Return the newest subscription of a person.
   *
   * @throws RangeError There is none.
   */
  subscription(userId: string): Promise<StripeObject> {
    return this.#newest(userId, "subscription");
  }

  /** Return all objects of a kind, such as `invoice`, oldest first, as in Stripe's API. */
  objects(kind: string): Promise<StripeObject[]> {
    return this.#control("GET", `objects?kind=${encodeURIComponent(kind)}`);
  }

  /** Disturb the webhooks of the events of an action. */
  async withWebhooks<Result>(disturbance: Disturbance, action: () => Promise<Result>): Promise<Result> {
    const { lost = 0, shuffled = 0, delayed = 0, copies = 1 } = disturbance;
    await this.#control("POST", "webhooks", {
      loss_rate: lost,
      shuffle_seconds: shuffled,
      delay_seconds: delayed,
      copies,
    });
    try {
      return await action();
    } finally {
      await this.#control("POST", "webhooks", {});
    }
  }

  /** Wait until no webhook is pending. Nest may still be handling what it has accepted. */
  async settle(seconds = 30): Promise<void> {
    await this.#control("POST", "webhooks/drain", { seconds });
  }

  async #newest(userId: string, kind: string): Promise<StripeObject> {
    const owned = (each: StripeObject): boolean => (each["metadata"] as { user_id?: string }).user_id === userId;
    const customers = new Set((await this.objects("customer")).filter(owned).map((each) => each.id));
    const found = (await this.objects(kind)).filter((each) => owned(each) || customers.has(each["customer"] as string));
    const newest = found.at(-1);
    if (newest === undefined) throw new RangeError(`${userId} has no ${kind} in Stripe`);
    return newest;
  }

  async #control<Result>(method: string, path: string, body?: object): Promise<Result> {
    const response = await fetch(`${this.url}/_double/${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#apiKey}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as Result & { error?: { message: string } };
    if (!response.ok) throw new Error(answer.error?.message ?? `status ${response.status}`);
    return answer;
  }
}
