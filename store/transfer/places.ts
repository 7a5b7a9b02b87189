/** Where backups lie: a file, standard output or input, an object on S3. */
import { link, open as openFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { TransferRefused } from './contract.js';

/** Takes the bytes of a backup. Nothing stands under its name before `finish`. */
export interface BackupSink {
  readonly name: string;
  /** Resolves when there is room for more. */
  write(bytes: Uint8Array): Promise<void>;
  /** Makes it durable under its name. */
  finish(): Promise<void>;
  /** Takes away what was written. */
  abort(): Promise<void>;
}

/** Gives the bytes of a backup. */
export interface BackupSource {
  readonly name: string;
  /** Whether `open` may be called again: then a backup is checked as a whole before anything is written. */
  readonly isRepeatable: boolean;
  open(): AsyncIterable<Uint8Array>;
  sizeBytes(): Promise<number | undefined>;
}

const readBytes = 1024 * 1024;

/** A file of mode 0600, written beside its place and put under its name at the end. Refuses to write over one that is there. */
export async function fileSink(path: string): Promise<BackupSink> {
  if (await stat(path).catch(() => undefined)) throw new TransferRefused(`${path} exists already`);
  const partial = join(dirname(path), `.${basename(path)}.${process.pid}.partial`);
  const file = await openFile(partial, 'wx', 0o600).catch((error: Error) => {
    throw new TransferRefused(`can't write ${path}: ${error.message}`, { cause: error });
  });
  const refuse = (error: NodeJS.ErrnoException) => {
    throw new TransferRefused(`can't write ${path}: ${error.message}`, { cause: error });
  };
  return {
    name: path,
    write: async (bytes) => void (await file.writeFile(bytes).catch(refuse)),
    async finish() {
      await file.sync().catch(refuse);
      await file.close();
      await putUnderName(partial, path).catch(refuse);
      await syncDirectory(dirname(path));
    },
    async abort() {
      await file.close().catch(() => {});
      await rm(partial, { force: true });
    },
  };
}

/** Unlike a rename a link never replaces what somebody else has put there meanwhile. */
async function putUnderName(partial: string, path: string): Promise<void> {
  try {
    await link(partial, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // File systems without hard links say so in several ways.
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code ?? '')) throw error;
    if (await stat(path).catch(() => undefined)) throw new Error('it exists already', { cause: error });
    return rename(partial, path);
  }
  await rm(partial, { force: true });
}

/** The name itself must last, too. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await openFile(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

export function streamSink(stream: Writable, name: string): BackupSink {
  let failure: Error | undefined;
  stream.on('error', (error) => (failure = error));
  const write = (bytes: Uint8Array) =>
    new Promise<void>((resolve, reject) => {
      if (failure) return reject(new TransferRefused(`can't write ${name}: ${failure.message}`));
      stream.write(bytes, (error) => (error ? reject(new TransferRefused(`can't write ${name}: ${error.message}`)) : resolve()));
    });
  return { name, write, finish: () => write(Buffer.alloc(0)), abort: async () => {} };
}

export function fileSource(path: string): BackupSource {
  return {
    name: path,
    isRepeatable: true,
    async *open() {
      const file = await openFile(path, 'r').catch((error: Error) => {
        throw new TransferRefused(`can't read ${path}: ${error.message}`, { cause: error });
      });
      try {
        for (;;) {
          const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(readBytes), 0, readBytes);
          if (bytesRead === 0) return;
          yield buffer.subarray(0, bytesRead);
        }
      } finally {
        await file.close();
      }
    },
    sizeBytes: async () => (await stat(path).catch(() => undefined))?.size,
  };
}

export function streamSource(stream: Readable, name: string): BackupSource {
  return {
    name,
    isRepeatable: false,
    open: () => stream as AsyncIterable<Uint8Array>,
    sizeBytes: async () => undefined,
  };
}
