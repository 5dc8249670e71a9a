/**
 * Client of Nest: login, tokens, calls with retries, React hooks, verification of tokens and webhooks.
 *
 * `Client` has the methods of Nest, `Session` those of one user. `errors` has one class per error code, `models` the types
 * of requests and responses. Back ends verify tokens and webhooks with `@nest/client/server`, processes of Node.js keep
 * tokens in a file with `@nest/client/node`, pages in React use `@nest/client/react`.
 */
export { type CallOptions, type Operation, type OwnerOptions } from "./caller.js";
export { Client, type ClientOptions, type LoginOptions } from "./client.js";
export { type Retries } from "./core.js";
export { type LoginAnswer, type PendingLogin, PendingLogins, type TextStorage } from "./login.js";
export { Session } from "./session.js";
export { LocalStorageStore, MemoryStore, type Tokens, type TokenStore } from "./tokens.js";
export { VERSION } from "./version.js";
export { ConnectionFailed, LoginRequired, NestError, StateMismatch, StoreLocked } from "./base-errors.js";
export * as errors from "./errors.js";
export type * as models from "./models.js";
