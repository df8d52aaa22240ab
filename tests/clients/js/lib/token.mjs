// JSON Web Tokens, made by hand so that wrong ones can be made too.
import { createHmac, randomUUID } from 'node:crypto';

/** The secret that every server of the suite is started with. */
export const SECRET = 'a secret of the test suite, long enough for HS256';

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Signs `claims`. `header` and `secret` replace what a right token has. */
export function mint(claims, { header = {}, secret = SECRET } = {}) {
  const { alg = 'HS256', ...rest } = header;
  const signed = `${part({ alg, typ: 'JWT', ...rest })}.${part(claims)}`;
  const hash = { HS256: 'sha256', HS384: 'sha384', HS512: 'sha512' }[alg];
  return `${signed}.${hash ? createHmac(hash, secret).update(signed).digest('base64url') : ''}`;
}

/** A new user: claims, and the token that proves them. */
export function user(username = 'alice') {
  const userId = randomUUID();
  const claims = { userId, username, email: `${username}@mail.example` };
  return { userId, username, email: claims.email, token: mint(claims) };
}
