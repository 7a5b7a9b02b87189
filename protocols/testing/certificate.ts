/** Self-signed certificates for tests, made with the openssl command. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TestCertificate {
  key: string;
  cert: string;
}

let made: TestCertificate | undefined;

/** For `mx.example.test`, `localhost` and 127.0.0.1; PEM. The same one in all of a process. */
export function testCertificate(): TestCertificate {
  made ??= makeCertificate('mx.example.test', ['DNS:mx.example.test', 'DNS:localhost', 'IP:127.0.0.1']);
  return made;
}

/** A new key and certificate for these subject alternative names (`DNS:…`, `IP:…`); PEM. */
export function makeCertificate(commonName: string, names: readonly string[]): TestCertificate {
  const folder = mkdtempSync(join(tmpdir(), 'starling-certificate-'));
  const keyFile = join(folder, 'key.pem');
  const certFile = join(folder, 'cert.pem');
  const what = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${commonName}`];
  const files = ['-addext', `subjectAltName=${names.join(',')}`, '-keyout', keyFile, '-out', certFile];
  try {
    execFileSync('openssl', ['req', '-x509', ...what, ...files], { stdio: 'pipe' });
    return { key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
