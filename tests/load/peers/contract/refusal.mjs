/** Why a request was not done, in the words of the contract. */
export class Refusal extends Error {
  constructor(code, message, retryAfterMs) {
    super(message);
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  /** What the client is told of any error; a cause of our own goes to the log. */
  static of(error) {
    if (error instanceof Refusal) return error;
    console.error(error);
    return new Refusal('INTERNAL_ERROR', 'the server failed');
  }

  toJSON() {
    return { code: this.code, message: this.message, retryAfterMs: this.retryAfterMs };
  }
}

export function check(holds, message) {
  if (!holds) throw new Refusal('VALIDATION_ERROR', message);
}
