// A certified OpenID provider for tests: one client, access tokens as JWT for whatever audience is asked for.
//
//     node provider.mjs PORT CERTIFICATE KEY
//
// Serves https://localhost:PORT. Says one JSON line when it listens, and one for each command, a line on its standard
// input: `rotate` signs with a new key from now on and publishes it beside the former ones; `withdraw` publishes only
// the newest; anything else only counts. It ends with its standard input.

import crypto from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import readline from 'node:readline';

import { Provider } from 'oidc-provider';

const [port, certificate, key] = process.argv.slice(2);
const issuer = `https://localhost:${port}`;
const counts = { configuration: 0, jwks: 0 };
let keys = [];
let answer;

function newKey() {
  const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: crypto.randomUUID(), use: 'sig', alg: 'RS256' };
}

function publish(published) {
  keys = published;
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'ann', client_secret: 'not-a-secret', grant_types: ['client_credentials'], redirect_uris: [],
      response_types: [],
    }],
    ttl: { ClientCredentials: 600 },
    cookies: { keys: [crypto.randomUUID()] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          scope: 'read write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  answer = provider.callback();
}

const say = (what) => process.stdout.write(`${JSON.stringify({ ...what, kids: keys.map((one) => one.kid), counts })}\n`);

publish([newKey()]);
https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, (request, response) => {
  if (request.url.startsWith('/.well-known/')) counts.configuration += 1;
  if (request.url.startsWith('/jwks')) counts.jwks += 1;
  answer(request, response);
}).listen(Number(port), '127.0.0.1', () => say({ listening: issuer }));

readline.createInterface({ input: process.stdin })
  .on('line', (command) => {
    if (command === 'rotate') publish([newKey(), ...keys]);
    if (command === 'withdraw') publish(keys.slice(0, 1));
    say({ done: command });
  })
  .on('close', () => process.exit(0));
