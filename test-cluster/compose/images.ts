/**
 * The images of the compose cluster, made on this machine alone: a base from debootstrap, Debian's packages in the place of official images, and Starling's
 * own from ops/docker/Dockerfile. What is there already is used again; Starling's image is always built.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { repositoryRoot } from '../harness/node-process.js';
import { runCommand } from '../harness/processes.js';
import { docker, hasImage, pipe, run } from './docker.js';

const base = 'starling-local/debian:12';
const nodeImage = `starling-local/node:${process.versions.node}`;
const recipes = join(repositoryRoot, 'test-cluster', 'compose', 'images');
/** What the Dockerfile copies. */
const sources = [
  'package.json',
  'package-lock.json',
  '.npmrc',
  'tsconfig.json',
  'tsconfig.build.json',
  'ops',
  'node',
  'cluster',
  'store',
  'protocols',
];

/** Binaries of FoundationDB on this machine, of one version. */
export interface FoundationDbBinaries {
  server: string;
  cli: string;
  clientLibrary: string;
  /** Debian packages that they need. */
  packages: string;
}

export interface LocalImages {
  starling: string;
  haproxy: string;
  prometheus: string;
  foundationdb: string;
}

export async function makeImages(
  foundationDb: FoundationDbBinaries | undefined,
  report: (line: string) => void,
): Promise<LocalImages> {
  if (!(await hasImage(base))) await makeBase(report);
  if (!(await hasImage(nodeImage))) await makeNodeImage(report);
  const images: LocalImages = {
    starling: 'starling:compose-test',
    haproxy: await debianImage('haproxy', 'starling-local/haproxy:2.6', report),
    prometheus: await debianImage('prometheus', 'starling-local/prometheus:2.42', report),
    foundationdb: 'starling-local/foundationdb:7.3',
  };
  if (foundationDb) await makeFoundationDbImage(images.foundationdb, foundationDb, report);
  else await debianImage('postgres', 'starling-local/postgres:15', report);
  report('building Starling');
  const args = { NODE_IMAGE: nodeImage, BASE: foundationDb ? images.foundationdb : base, FOUNDATIONDB: images.foundationdb };
  await pipe(
    ['tar', '-C', repositoryRoot, '-c', ...sources],
    [
      'docker',
      'build',
      '-f',
      'ops/docker/Dockerfile',
      ...buildArguments(args),
      '--target',
      foundationDb ? 'starling' : 'lean',
      '-t',
      images.starling,
      '-',
    ],
  );
  return images;
}

const buildArguments = (args: Record<string, string>) =>
  Object.entries(args).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]);

async function inFolder(work: (folder: string) => Promise<unknown>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'starling-image-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function makeBase(report: (line: string) => void): Promise<void> {
  report('debootstrap bookworm');
  return inFolder(async (folder) => {
    const root = join(folder, 'root');
    await run('debootstrap', [
      '--variant=minbase',
      'bookworm',
      root,
      process.env['STARLING_DEBIAN_MIRROR'] ?? 'http://deb.debian.org/debian',
    ]);
    for (const emptied of ['var/cache/apt/archives', 'var/lib/apt/lists'])
      for (const name of readdirSync(join(root, emptied))) rmSync(join(root, emptied, name), { recursive: true });
    await pipe(['tar', '-C', root, '-c', '.'], ['docker', 'import', '-', base]);
  });
}

function makeNodeImage(report: (line: string) => void): Promise<void> {
  report('image of node');
  return inFolder(async (folder) => {
    const npm = (await run('sh', ['-c', 'command -v npm'])).trim();
    cpSync(process.execPath, join(folder, 'node'), { dereference: true });
    cpSync(dirname(dirname(realpathSync(npm))), join(folder, 'npm'), { recursive: true, dereference: true });
    const authority = '/etc/ssl/certs/ca-certificates.crt';
    if (existsSync(authority)) cpSync(authority, join(folder, 'authority.pem'), { dereference: true });
    else writeFileSync(join(folder, 'authority.pem'), '');
    await build('node', nodeImage, folder);
  });
}

async function debianImage(name: string, image: string, report: (line: string) => void): Promise<string> {
  if (await hasImage(image)) return image;
  report(`image of ${name}`);
  await inFolder(async (folder) => {
    if (name === 'postgres') cpSync(join(recipes, 'postgres.sh'), join(folder, 'postgres.sh'));
    await build(name, image, folder);
  });
  return image;
}

async function makeFoundationDbImage(
  image: string,
  binaries: FoundationDbBinaries,
  report: (line: string) => void,
): Promise<void> {
  if (await hasImage(image)) return;
  report('image of FoundationDB');
  await inFolder(async (folder) => {
    cpSync(binaries.server, join(folder, 'fdbserver'), { dereference: true });
    cpSync(binaries.cli, join(folder, 'fdbcli'), { dereference: true });
    cpSync(binaries.clientLibrary, join(folder, 'libfdb_c.so'), { dereference: true });
    await build('foundationdb', image, folder, { LIBRARIES: binaries.packages });
  });
}

function build(recipe: string, image: string, folder: string, args: Record<string, string> = {}): Promise<string> {
  const file = join(recipes, `${recipe}.Dockerfile`);
  return docker('build', '-f', file, ...buildArguments({ BASE: base, ...args }), '-t', image, folder);
}

/** Of an image, uncompressed, with all its layers. */
export async function imageBytes(image: string): Promise<number> {
  return Number(await docker('image', 'inspect', '--format', '{{.Size}}', image));
}

/** Whether a docker daemon answers here. */
export async function isDockerRunning(): Promise<boolean> {
  return (await runCommand('docker', ['info']).catch(() => undefined))?.code === 0;
}
