/** A self-signed certificate for tests, made once per process with the openssl command. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TestCertificate {
  key: string;
  cert: string;
}

let made: TestCertificate | undefined;

/** For `mx.example.test`, `localhost` and 127.0.0.1; PEM. */
export function testCertificate(): TestCertificate {
  made ??= make();
  return made;
}

function make(): TestCertificate {
  const folder = mkdtempSync(join(tmpdir(), 'starling-certificate-'));
  const keyFile = join(folder, 'key.pem');
  const certFile = join(folder, 'cert.pem');
  const names = 'subjectAltName=DNS:mx.example.test,DNS:localhost,IP:127.0.0.1';
  const what = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=mx.example.test'];
  try {
    execFileSync('openssl', ['req', '-x509', ...what, '-addext', names, '-keyout', keyFile, '-out', certFile], { stdio: 'pipe' });
    return { key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
