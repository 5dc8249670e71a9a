/** Web Cryptography of browsers and other runtimes. `crypto-node.ts` replaces this module in Node.js. */
export const webcrypto: Crypto = globalThis.crypto;
