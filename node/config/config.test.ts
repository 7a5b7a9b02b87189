import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ConfigError, checkConfig, loadConfig } from './load.js';
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
    expect(config.smtp.mustMatchSender).toBe(true);
    expect(config.listeners).toMatchObject([{ name: 'mx', host: '127.0.0.1', tls: 'none' }]);
  });

  it('takes the quickstart settings', () => {
    const config = checkConfig(quickstartConfig('x', 100));
    expect(config.listeners.find((listener) => listener.name === 'imaps')).toMatchObject({ port: 3093, tls: 'implicit' });
  });

  it.each([
    ['an unknown setting', 'hostnam = "x"\n', /hostnam/],
    ['a wrong type', '[smtp]\nmaxRecipients = "many"\n', /smtp\.maxRecipients/],
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
    const servers = (list: string[]) => loadText(`[outbound]\ndnsServers = ${JSON.stringify(list)}\n`).outbound.dnsServers;
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
      expect(() => servers([bad]), bad).toThrow(/outbound\.dnsServers\.0: an IP address/);
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
      '[outbound.relay]\nhost = "x"\npassword = "s3cret" x\n',
      '[outbound.relay]\nhost = 1\npassword = "s3cret"\n',
    ])
      expect(message(text)).not.toContain('s3cret');
  });

  it('says when the file is not there', () => {
    expect(() => loadConfig(join(directory, 'absent.toml'))).toThrow(/can't read/);
  });
});
