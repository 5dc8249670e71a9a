// A Nest without a network: a `fetch` that answers calls, first with the `faults` and then as Nest does.
export function refusal(status, code, { reason, headers = {}, ...meta } = {}) {
  const body = { code, message: "Do this.", docs: `/reference#error-${code}`, meta: { request_id: "r1", ...meta } };
  if (reason) body.reasons = [{ code: reason, message: "Do that.", docs: `/reference#error-${reason}` }];
  if ("retry_after" in meta) headers["retry-after"] = String(meta.retry_after);
  return new Response(JSON.stringify(body), { status, headers });
}

export function json(value, init) {
  return new Response(JSON.stringify(value), init);
}

export class FakeNest {
  faults = []; // responses and errors in place of Nest's answers
  lost = new Set(); // numbers of calls that take effect without an answer
  requests = [];
  generation = 0;
  stored = new Map();
  lifetime = 3600;
  reused = 0;

  fetch = async (url, init = {}) => {
    const request = new Request(url, { ...init, duplex: "half" });
    const call = {
      path: new URL(url).pathname,
      method: init.method ?? "GET",
      headers: Object.fromEntries(request.headers),
      body: init.body === undefined ? undefined : JSON.parse(init.body),
    };
    this.requests.push(call);
    const number = this.requests.length;
    const fault = this.faults.shift();
    if (fault instanceof Error) throw fault;
    if (fault) return fault;
    const answer = await this.answer(call);
    if (this.lost.has(number)) throw new TypeError("fetch failed");
    return answer;
  };

  async answer(call) {
    if (call.path.endsWith("/authenticate_user")) {
      await new Promise((resolve) => setTimeout(resolve, 5)); // a window for races
      const key = call.headers["idempotency-key"];
      if (!this.stored.has(key)) {
        const used = call.body.refresh_token;
        if (used !== undefined && used !== `r${this.generation}`) {
          this.reused += 1;
          return refusal(409, "token_used");
        }
        this.generation += 1;
        this.stored.set(key, this.tokens());
      }
      return json(this.stored.get(key));
    }
    const given = call.headers["authorization"];
    if (given?.startsWith("bearer a") && given !== `bearer a${this.generation}`) {
      return refusal(401, "unauthorized", { reason: "token_revoked" });
    }
    if (call.path.endsWith("/list_plans")) {
      const headers = { etag: '"plans-1"' };
      const known = call.headers["if-none-match"] === headers.etag;
      return known ? new Response(null, { status: 304, headers }) : json({ plans: [] }, { headers });
    }
    return json({ path: call.path, body: call.body });
  }

  tokens() {
    return {
      access_token: `a${this.generation}`,
      token_type: "bearer",
      expires_in: this.lifetime,
      expires_at: "2026-11-21T07:05:00.000Z",
      refresh_token: `r${this.generation}`,
      user_id: "user_1",
      client_id: "client_1",
    };
  }

  calls(method) {
    return this.requests.filter((each) => each.path.endsWith(`/${method}`));
  }
}

export function tokens(changes = {}) {
  const expiresAt = Date.now() / 1000 + 3600;
  return { accessToken: "a0", refreshToken: "r0", expiresAt, userId: "user_1", clientId: "client_1", refreshKey: null, ...changes };
}
