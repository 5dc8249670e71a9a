import { webcrypto } from "#crypto";

const encoder = new TextEncoder();

/** Return random bytes in web-safe base64 without padding. */
export function randomText(bytes: number): string {
  return toBase64Url(webcrypto.getRandomValues(new Uint8Array(bytes)));
}

/** Return bytes in web-safe base64 without padding (RFC 4648 section 5). */
export function toBase64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Return the bytes of standard base64, or null if it is none. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

/** Return a text in UTF-8. */
export function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text) as Uint8Array<ArrayBuffer>;
}

/** Return the functions that browsers have in pages over HTTPS and on loopback only. */
export function subtle(): SubtleCrypto {
  if (webcrypto?.subtle === undefined) {
    throw new Error("Web Cryptography is missing: serve the page over HTTPS, or on localhost.");
  }
  return webcrypto.subtle;
}

/** Return the key of an HMAC with SHA-256. */
export function hmacKey(secret: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  return subtle().importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}
