/** Cause of an error, such as the reason why a token was refused. */
export interface Reason {
  readonly code: string;
  readonly message: string;
  readonly docs: string;
}

/** Fields of a `NestError`. */
export interface ErrorFields {
  code: string;
  status: number;
  message?: string;
  docs?: string;
  requestId?: string;
  retryAfter?: number | null;
  reasons?: readonly Reason[];
  meta?: Readonly<Record<string, unknown>>;
}

/** Nest refused a call. */
export class NestError extends Error {
  /** Stable code of the error; `http_<status>` if the response has none, as from a proxy. */
  readonly code: string;
  /** What to do, in one sentence for developers. The words may change. */
  readonly explanation: string;
  /** Path of the code's documentation on the Nest, or an empty string. */
  readonly docs: string;
  /** HTTP status. */
  readonly status: number;
  /** ID of the request in Nest's logs, or an empty string. */
  readonly requestId: string;
  /** Seconds to wait before another attempt, or null. */
  readonly retryAfter: number | null;
  /** Causes, for `unauthorized`. */
  readonly reasons: readonly Reason[];
  /** Details, which depend on the code. */
  readonly meta: Readonly<Record<string, unknown>>;

  constructor(fields: ErrorFields) {
    const because = (fields.reasons ?? []).map((reason) => ` (${reason.code})`).join("");
    const refusal = `${fields.status} ${fields.code}${because}`;
    super(fields.message ? `${refusal}: ${fields.message}` : refusal);
    this.name = new.target.name;
    this.code = fields.code;
    this.explanation = fields.message ?? "";
    this.docs = fields.docs ?? "";
    this.status = fields.status;
    this.requestId = fields.requestId ?? "";
    this.retryAfter = fields.retryAfter ?? null;
    this.reasons = fields.reasons ?? [];
    this.meta = fields.meta ?? {};
  }
}

/** A status from 400 to 499. */
export class ClientError extends NestError {}

/** A status from 500 on. */
export class ServerError extends NestError {}

/** No response arrived, in all attempts. It is unknown whether a command took effect. */
export class ConnectionFailed extends Error {
  override readonly name = "ConnectionFailed";

  constructor(
    message: string,
    /** The key to repeat the command with, or null for a query. */
    readonly idempotencyKey: string | null = null,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The session has no tokens, or Nest has ended it. The person has to log in again. */
export class LoginRequired extends Error {
  override readonly name = "LoginRequired";
}

/** The redirect belongs to another login: its `state` is missing or differs. */
export class StateMismatch extends Error {
  override readonly name = "StateMismatch";
}

/** Another tab or process has held the lock of the token store for too long. */
export class StoreLocked extends Error {
  override readonly name = "StoreLocked";
}
