/** The cluster of docker-compose.cluster.yml on this machine: its files and ports, its containers, what they say. */
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { repositoryRoot } from '../harness/node-process.js';
import { freePort } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';
import { ComposeProject, docker, run } from './docker.js';
import type { LocalImages } from './images.js';

export type StoreName = 'postgres' | 'foundationdb';
export const nodeNames = ['node1', 'node2', 'node3'] as const;
export type NodeName = (typeof nodeNames)[number];

/** Of the image: the user that the node runs as. */
const starlingUid = 10_025;
const healthCheck = '/opt/starling/ops/docker/health.mjs';
const readyUrl = 'http://127.0.0.1:2080/health/ready';

export interface PublicPorts {
  smtp: number;
  submissions: number;
  submission: number;
  imap: number;
  imaps: number;
  pop3: number;
  pop3s: number;
  https: number;
  prometheus: number;
}

export class ComposeCluster {
  private constructor(
    readonly project: ComposeProject,
    readonly ports: PublicPorts,
    private readonly folder: string,
  ) {}

  /** Nothing runs yet. What an earlier run has left is taken away. */
  static async prepare(store: StoreName, images: LocalImages): Promise<ComposeCluster> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-compose-'));
    await makeSecrets(folder, images.starling);
    const ports: PublicPorts = {
      smtp: await freePort(),
      submissions: await freePort(),
      submission: await freePort(),
      imap: await freePort(),
      imaps: await freePort(),
      pop3: await freePort(),
      pop3s: await freePort(),
      https: await freePort(),
      prometheus: await freePort(),
    };
    const env = {
      STARLING_IMAGE: images.starling,
      HAPROXY_IMAGE: images.haproxy,
      PROMETHEUS_IMAGE: images.prometheus,
      FOUNDATIONDB_IMAGE: images.foundationdb,
      STARLING_SECRETS: join(folder, 'secrets'),
      STARLING_ADDRESS: '127.0.0.1',
      STARLING_SMTP_PORT: String(ports.smtp),
      STARLING_SUBMISSIONS_PORT: String(ports.submissions),
      STARLING_SUBMISSION_PORT: String(ports.submission),
      STARLING_IMAP_PORT: String(ports.imap),
      STARLING_IMAPS_PORT: String(ports.imaps),
      STARLING_POP3_PORT: String(ports.pop3),
      STARLING_POP3S_PORT: String(ports.pop3s),
      STARLING_HTTPS_PORT: String(ports.https),
      PROMETHEUS_PORT: String(ports.prometheus),
      STARLING_TEST_PASSWORD: 'a-password-of-the-test-alone',
    };
    const files = ['docker-compose.cluster.yml', join('test-cluster', 'compose', `override-${store}.yml`)];
    const project = await ComposeProject.open('starling-compose-test', files, env, repositoryRoot);
    await project.compose('down', '-v', '--remove-orphans');
    return new ComposeCluster(project, ports, folder);
  }

  up(): Promise<string> {
    return this.project.compose('up', '-d');
  }

  /** Containers, networks, volumes, secrets: all gone. */
  async remove(): Promise<void> {
    await this.project.compose('down', '-v', '--remove-orphans', '-t', '5');
    rmSync(this.folder, { recursive: true, force: true });
  }

  async waitUntilReady(timeoutMs: number, names: readonly NodeName[] = nodeNames): Promise<void> {
    for (const name of names)
      await waitFor(`${name} is ready`, timeoutMs, async () => {
        const id = await this.project.container(name);
        const asked = await runCommand('docker', ['exec', '-e', `STARLING_HEALTH_URL=${readyUrl}`, id, 'node', healthCheck]);
        if (asked.code !== 0) throw new Error(`${asked.stdout}${asked.stderr}`.trim());
        return true;
      }).catch(async (error: Error) => {
        throw new Error(`${error.message}\n${(await this.logs(name)).split('\n').slice(-10).join('\n')}`);
      });
  }

  /** Runs a program in a node's container. */
  async inNode(name: NodeName, ...command: string[]): Promise<string> {
    return docker('exec', await this.project.container(name), ...command);
  }

  /** `starling …` on a node, with `--json`. */
  async starling<T>(name: NodeName, ...args: string[]): Promise<T> {
    return JSON.parse(await this.inNode(name, 'starling', ...args, '--json')) as T;
  }

  async kill(name: NodeName): Promise<void> {
    await docker('kill', await this.project.container(name));
  }

  /** When the process of a stopped container ended, on the wall clock of this machine. */
  async endedAtMs(name: NodeName): Promise<number> {
    return Date.parse((await docker('inspect', '--format', '{{.State.FinishedAt}}', await this.project.container(name))).trim());
  }

  /** SIGTERM, and as long as compose gives. Answers how the process ended and how long that took. */
  async drain(name: NodeName): Promise<{ exitCode: number; seconds: number }> {
    const id = await this.project.container(name);
    const begunMs = performance.now();
    await this.project.compose('stop', name);
    const seconds = Number(((performance.now() - begunMs) / 1000).toFixed(1));
    return { exitCode: Number(await docker('inspect', '--format', '{{.State.ExitCode}}', id)), seconds };
  }

  async start(name: NodeName): Promise<void> {
    await docker('start', await this.project.container(name));
  }

  async logs(name: NodeName): Promise<string> {
    const { stdout, stderr } = await runCommand('docker', ['logs', await this.project.container(name)]);
    return stdout + stderr;
  }
}

/** The documented one-liners: a key from the image, a certificate from openssl; readable for the nodes alone. */
async function makeSecrets(folder: string, image: string): Promise<void> {
  const secrets = join(folder, 'secrets');
  mkdirSync(secrets, { mode: 0o711 });
  chmodSync(folder, 0o711);
  const at = (name: string) => join(secrets, name);
  const key = await docker('run', '--rm', '--network', 'none', image, 'cluster-key');
  writeFileSync(at('cluster.key'), key, { mode: 0o600 });
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'];
  const subject = ['-subj', '/CN=mail.example.test', '-addext', 'subjectAltName=DNS:mail.example.test'];
  await run('openssl', [...request, ...subject, '-keyout', at('tls-key.pem'), '-out', at('tls-chain.pem')]);
  chmodSync(at('tls-key.pem'), 0o600);
  writeFileSync(at('grafana-password'), 'unused', { mode: 0o600 });
  for (const name of ['cluster.key', 'tls-key.pem', 'tls-chain.pem']) chownSync(at(name), starlingUid, starlingUid);
}
