/** For processes of Node.js: a token store in a file. */
import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { locked, Mutex, readTokens, type Tokens, type TokenStore } from "./tokens.js";

/** Age in seconds at which a lock counts as left behind by a process that has ended. */
const STALE_SECONDS = 10;
const RENEWAL_SECONDS = 2;

/**
 * Token store in a file that only its owner can read (mode 0600). Processes of one machine can share it.
 *
 * Writes replace the file, so a reader never sees a part of one. The lock is the file `<path>.lock`, whose holder renews
 * its time; a lock that a process has left behind is taken after ten seconds.
 */
export class FileStore implements TokenStore {
  readonly #mutex = new Mutex();

  /** @param path Path of the file, in an existing folder on a local file system. */
  constructor(readonly path: string) {}

  /**
   * Return the tokens, or null if there is no file.
   *
   * @throws Error The file has other content.
   */
  async load(): Promise<Tokens | null> {
    const text = await readFile(this.path, "utf8").catch(ifMissing(null));
    const tokens = text === null ? null : readTokens(text);
    if (text !== null && tokens === null) {
      throw new Error(`${this.path} has no tokens of this client. Delete it and log in again.`);
    }
    return tokens;
  }

  /** Replace the file and wait until it is on disk; null removes it. */
  async save(tokens: Tokens | null): Promise<void> {
    if (tokens === null) return rm(this.path, { force: true });
    const name = join(dirname(this.path), `.${basename(this.path)}.${randomBytes(6).toString("hex")}`);
    try {
      const file = await open(name, "wx", 0o600);
      try {
        await file.writeFile(JSON.stringify(tokens));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(name, this.path);
    } catch (error) {
      await rm(name, { force: true });
      throw error;
    }
  }

  lock<Result>(action: () => Promise<Result>, seconds: number): Promise<Result> {
    return this.#mutex.run(() => this.#lockFile(action, seconds), seconds);
  }

  async #lockFile<Result>(action: () => Promise<Result>, seconds: number): Promise<Result> {
    const path = `${this.path}.lock`;
    const id = randomBytes(12).toString("hex");
    const endsAt = Date.now() + seconds * 1000;
    while (!(await created(path, id))) {
      if (await isStale(path)) await removeStale(path);
      if (Date.now() > endsAt) throw locked();
      await pause(10 + Math.random() * 20);
    }
    // A lock that cannot be renewed lapses. A session stores no older tokens over newer ones then.
    const renew = (): void => void utimes(path, new Date(), new Date()).catch(() => {});
    const renewal = setInterval(renew, RENEWAL_SECONDS * 1000);
    try {
      return await action();
    } finally {
      clearInterval(renewal);
      if ((await readFile(path, "utf8").catch(ifMissing(""))) === id) await rm(path, { force: true });
    }
  }
}

async function created(path: string, content: string): Promise<boolean> {
  try {
    await writeFile(path, content, { flag: "wx", mode: 0o600 });
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

async function isStale(path: string): Promise<boolean> {
  const at = await stat(path).then((found) => found.mtimeMs, ifMissing(Infinity));
  return Date.now() - at > STALE_SECONDS * 1000;
}

/** Remove a lock that is stale. A second lock keeps others from removing the lock that follows it. */
async function removeStale(path: string): Promise<void> {
  const guard = `${path}.stale`;
  if (!(await created(guard, ""))) {
    if (await isStale(guard)) await rm(guard, { force: true });
    return;
  }
  try {
    if (await isStale(path)) await rm(path, { force: true });
  } finally {
    await rm(guard, { force: true });
  }
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}

function ifMissing<Value>(value: Value): (error: unknown) => Value {
  return (error) => {
    if (codeOf(error) === "ENOENT") return value;
    throw error;
  };
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
