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

  it('says when the file is not there', () => {
    expect(() => loadConfig(join(directory, 'absent.toml'))).toThrow(/can't read/);
  });
});
