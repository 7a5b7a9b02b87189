import { describe, expect, it } from 'vitest';
import { checkConfig } from './load.js';

describe('whose PROXY header a listener believes', () => {
  const parse = (proxyProtocol: object, rest: object = {}) =>
    checkConfig({ listeners: [{ name: 'mx', protocol: 'smtp', port: 25, proxyProtocol, ...rest }] } as never).listeners[0]!
      .proxyProtocol;

  it('is a list of addresses and networks', () => {
    const from = ['192.0.2.1', '10.0.0.0/8', '0.0.0.0/0', '2001:db8::1', '2001:db8::/32'];
    expect(parse({ from })).toEqual({ from, required: false });
    expect(parse({ from, required: true })).toEqual({ from, required: true });
    expect(parse({ from }, { protocol: 'http' })).toBeDefined();
  });

  it.each(['', 'balancer', '10.0.0.0/33', '10.0.0/8', '10.0.0.0/', '/8', '2001:db8::/129', 'fe80::1%eth0', '192.0.2.1:25'])(
    'is not "%s"',
    (network) => {
      expect(() => parse({ from: [network] })).toThrow(/listeners\.0\.proxyProtocol\.from\.0: an IP address, or a network/);
    },
  );

  it('is somebody, and nobody before TLS in HTTP', () => {
    expect(() => parse({ from: [] })).toThrow(/proxyProtocol\.from/);
    expect(() => parse({})).toThrow(/proxyProtocol\.from/);
    expect(() => parse({ from: ['192.0.2.1'] }, { protocol: 'http', tls: 'implicit' })).toThrow(
      /listeners\.0\.proxyProtocol: HTTPS takes no PROXY header/,
    );
  });
});
