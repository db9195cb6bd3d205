// The identity provider that the tests sign in against; takes its port and the vault's address.
// Anyone signs in with any password; who one is, is what one types: "desk" is in the group "desk".
import Provider from 'oidc-provider';

const [port, origin] = process.argv.slice(-2);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'portvault',
    client_secret: 'a-secret-of-the-tests',
    redirect_uris: [`${origin}/console/callback`],
    post_logout_redirect_uris: [`${origin}/console`],
    backchannel_logout_uri: `${origin}/console/back-channel-logout`,
    backchannel_logout_session_required: true,
  }],
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  claims: { openid: ['sub', 'sid'], profile: ['name'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'groups'],
  cookies: { keys: ['only-for-tests'] },
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: true } },
  // By itself it calls no loopback address, where the vault of the tests is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  async findAccount(ctx, id) {
    return {
      accountId: id,
      async claims() {
        return { sub: id, name: `Robin ${id}`, groups: id.split('+') };
      },
    };
  },
});
const server = provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
process.on('SIGTERM', () => { server.closeAllConnections(); server.close(); process.exit(0); });
