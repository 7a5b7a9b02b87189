import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ConfigError, checkConfig, loadConfig } from './load.js';
import { withLocation } from './location.js';
import { quickstartConfig } from './quickstart.js';

const directory = mkdtempSync(join(tmpdir(), 'starling-config-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function loadText(text: string) {
  const file = join(directory, 'starling.toml');
  writeFileSync(file, text);
  return loadConfig(file);
}

describe('the local file', () => {
  it('fills in defaults', () => {
    const config = loadText('hostname = "mx1.example.org"\n[[listeners]]\nname = "mx"\nprotocol = "smtp"\nport = 25\n');
    expect(config.roles).toEqual(['smtp', 'imap', 'http', 'queue']);
    expect(config.listeners).toMatchObject([{ name: 'mx', host: '127.0.0.1', tls: 'none' }]);
  });

  it('takes the quickstart settings', () => {
    const config = checkConfig(quickstartConfig('x', 100));
    expect(config.listeners.find((listener) => listener.name === 'imaps')).toMatchObject({ port: 3093, tls: 'implicit' });
  });

  it('says where a node gossips', () => {
    const gossip = (text: string) => loadText(`[gossip]\n${text}\n`).gossip;
    expect(gossip('')).toEqual({ host: '127.0.0.1', port: 2946, advertise: [], bootstrap: [], mdns: false });
    expect(gossip('advertise = ["mx1.example.org:2946", "192.0.2.1:1", "[2001:db8::1]:65535"]').advertise).toEqual([
      { host: 'mx1.example.org', port: 2946 },
      { host: '192.0.2.1', port: 1 },
      { host: '2001:db8::1', port: 65_535 },
    ]);
    for (const bad of ['', 'mx1', 'mx1:', 'mx1:0', 'mx1:65536', '2001:db8::1', '[mx1]:1', '1.2.3:1', 'a b:1', '-a:1'])
      expect(() => gossip(`bootstrap = ["${bad}"]`), bad).toThrow(/gossip\.bootstrap\.0: a name or an address, with its port/);
  });

  it('gossips in the quickstart on the port of its offset, whatever else the file says', () => {
    const gossip = (overrides: object) => checkConfig(quickstartConfig('x', 100, overrides)).gossip;
    expect(gossip({}).port).toBe(3046);
    expect(gossip({ gossip: { mdns: true } })).toMatchObject({ port: 3046, mdns: true });
    expect(gossip({ gossip: { port: 7 } }).port).toBe(7);
    expect(() => gossip({ gossip: 7 })).toThrow(/gossip: /);
  });

  it.each([
    ['an unknown setting', 'hostnam = "x"\n', /hostnam/],
    ['a wrong type', '[log]\nlevel = 3\n', /log\.level/],
    ['a role that there is not', 'roles = ["pop3"]\n', /roles\.0/],
    ['two cluster keys', 'clusterKey = "a"\nclusterKeyFile = "b"\n', /not both/],
    ['what is a setting of the cluster now', '[smtp]\nmaxRecipients = 1\n', /smtp: .*starling settings apply FILE'$/],
    ['what has another name now', '[outbound]\ndnsServers = []\n', /outbound: .*stays in this file, as dns\.servers$/],
    ['TOML that is none', 'x = [\n', /not valid TOML \(line/],
    ['STARTTLS in HTTP', '[[listeners]]\nname="web"\nprotocol="http"\nport=1\ntls="starttls"\n', /web: there is no STARTTLS/],
    ['half a certificate', '[tls]\ncertificateFile = "a.pem"\n', /go together/],
    [
      'a listener name twice',
      '[[listeners]]\nname="a"\nprotocol="smtp"\nport=1\n[[listeners]]\nname="a"\nprotocol="imap"\nport=2\n',
      /used twice/,
    ],
  ])('refuses %s in a sentence', (_what, text, message) => {
    expect(() => loadText(text)).toThrow(ConfigError);
    expect(() => loadText(text)).toThrow(message);
  });

  it('takes DNS servers as addresses only, with a port or without', () => {
    const servers = (list: string[]) => loadText(`[dns]\nservers = ${JSON.stringify(list)}\n`).dns.servers;
    const good = ['192.0.2.1', '192.0.2.1:5353', '2001:db8::1', '[2001:db8::1]', '[2001:db8::1]:5353'];
    expect(servers(good)).toEqual(good);
    for (const bad of [
      '',
      'dns.example.org',
      '192.0.2.1:',
      '192.0.2.1:0',
      '192.0.2.1:65536',
      '192.0.2',
      '[192.0.2.1]:53',
      '[::1',
    ])
      expect(() => servers([bad]), bad).toThrow(/dns\.servers\.0: an IP address/);
  });

  it('never quotes the file: there may be passwords in it', () => {
    const message = (text: string) => {
      try {
        loadText(text);
      } catch (error) {
        return (error as ConfigError).message;
      }
      throw new Error('it was taken');
    };
    for (const text of [
      'clusterKey = "s3cret" x\n',
      'clusterKey = ["s3cret"]\n',
      '[outbound.relay]\npassword = "s3cret"\n',
      '[store]\nbackend = "postgres"\nurl = ["postgres://a:s3cret@b/c"]\n',
    ])
      expect(message(text)).not.toContain('s3cret');
  });

  it('says when the file is not there', () => {
    expect(() => loadConfig(join(directory, 'absent.toml'))).toThrow(/can't read/);
  });
});

describe('where the store is', () => {
  const env = { STARLING_STORE: 'postgres://a:s3cret@b/c' };

  it('is said by an option before the file, and by the file before the environment', () => {
    expect(withLocation({}, { env: {} }).store).toBeUndefined();
    expect(withLocation({}, { env }).store).toEqual({ backend: 'postgres', url: env.STARLING_STORE });
    expect(withLocation({ store: { backend: 'embedded' } }, { env }).store).toEqual({ backend: 'embedded' });
    const given = withLocation(
      { store: { backend: 'embedded' }, clusterKey: 'x' },
      { env, store: 'foundationdb:/f', clusterKeyFile: 'k' },
    );
    expect(given).toEqual({ store: { backend: 'foundationdb', clusterFile: '/f' }, clusterKeyFile: 'k' });
    expect(checkConfig(withLocation({}, { env, store: 'embedded:/d' })).store).toEqual({ backend: 'embedded', directory: '/d' });
  });

  it('is waited for as long as the file says, wherever it is', () => {
    const file = { store: { backend: 'postgres' as const, url: 'postgres://h/d', startTimeoutSeconds: 5 } };
    const at = (store?: string) => checkConfig(withLocation(file, { env: {}, store })).store;
    expect(at()).toMatchObject({ url: 'postgres://h/d', startTimeoutSeconds: 5 });
    expect(at('postgres://i/d')).toMatchObject({ url: 'postgres://i/d', startTimeoutSeconds: 5 });
    expect(at('embedded:/d')).toEqual({ backend: 'embedded', directory: '/d' });
    expect(checkConfig(withLocation({}, { env })).store).toMatchObject({ startTimeoutSeconds: 120 });
  });

  it('is refused in a sentence that quotes nothing', () => {
    const refuse = (env: NodeJS.ProcessEnv, store?: string) => () => withLocation({}, { env, store });
    expect(refuse({ STARLING_STORE: 'mysql://a:s3cret@b' })).toThrow(/^STARLING_STORE: a store is (?!.*s3cret)/);
    expect(refuse({}, 'nowhere')).toThrow(/^--store: a store is/);
  });
});
