import { webcrypto as nodeCrypto } from "node:crypto";

// Node.js 18 has Web Cryptography, but not as a global, which jose needs.
globalThis.crypto ??= nodeCrypto as Crypto;

/** Web Cryptography of Node.js. */
export const webcrypto: Crypto = globalThis.crypto;
