/**
 * Blobs as files in a directory that all nodes share. An object is `ab/cd/<storage id>`; it is written under a temporary name in the same folder, made
 * durable, and renamed. No file is ever changed or locked. A mark in the directory tells that it is mounted.
 */
import { constants } from 'node:fs';
import { access, type FileHandle, mkdir, open, opendir, readFile, rename, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Random } from '../../ops/telemetry/index.js';
import { KvError, type KvStore } from '../kv/contract.js';
import { BatchedWrites } from './batches.js';
import {
  ExternalDamaged,
  ExternalMissing,
  type ExternalStorage,
  type ExternalWriter,
  type FilesOptions,
  type StoredObject,
} from './external.js';
import { StorageIdentity } from './identity.js';

const writeBytes = 524_288;
const readBytes = 262_144;
const markName = 'starling-blobs';
const temporarySuffix = '.tmp';
const shardPattern = /^[0-9a-f]{2}$/;
const objectPattern = /^([0-9a-f]{32})(\.tmp)?$/;

export function openFileStorage(parts: { kv: KvStore; random: Random }, options: FilesOptions): ExternalStorage {
  return new FileStorage(parts, options.directory);
}

class FileStorage implements ExternalStorage {
  readonly place = 'files';
  readonly #root: string;
  readonly #identity: StorageIdentity;

  constructor(parts: { kv: KvStore; random: Random }, root: string) {
    this.#root = root;
    const mark = join(root, markName);
    this.#identity = new StorageIdentity(parts, 'files', {
      name: `directory ${root}`,
      read: () => translated(async () => (await unlessAbsent(readFile(mark, 'latin1')))?.trim()),
      write: (text) => translated(() => writeMark(root, mark, `${text}\n`, parts.random)),
    });
  }

  put(storageId: string): ExternalWriter {
    return new FileWriter(this.#root, storageId, this.#identity);
  }

  async *read(storageId: string, start: number, end: number, storedBytes: number): AsyncGenerator<Buffer, void, undefined> {
    const handle = await translated(() => unlessAbsent(open(pathOf(this.#root, storageId), 'r')));
    if (!handle) {
      await this.#identity.confirm();
      throw new ExternalMissing(`no file ${storageId}`);
    }
    try {
      const { size } = await translated(() => handle.stat());
      if (size !== storedBytes) throw new ExternalDamaged(`its file has ${size} bytes instead of ${storedBytes}`);
      let next: Promise<Buffer> | undefined = readAt(handle, start, end);
      for (let position = start; next; ) {
        const piece: Buffer = await next;
        position += piece.length;
        next = position < end ? readAt(handle, position, end) : undefined;
        next?.catch(() => {});
        yield piece;
      }
      // Whoever stops early leaves a read behind; closing waits for it.
    } finally {
      await handle.close().catch(() => {});
    }
  }

  async size(storageId: string): Promise<number | undefined> {
    const found = await translated(() => unlessAbsent(stat(pathOf(this.#root, storageId))));
    if (!found) await this.#identity.confirm();
    return found?.size;
  }

  async remove(storageId: string, { isAbandoned }: { isAbandoned: boolean }): Promise<void> {
    const path = pathOf(this.#root, storageId);
    const paths = isAbandoned ? [path + temporarySuffix, path] : [path];
    let didRemove = false;
    for (const one of paths) didRemove = (await translated(() => unlessAbsent(unlink(one).then(() => true)))) || didRemove;
    // The record that tells of this object goes next: the removal must be as durable as that.
    if (didRemove) await translated(() => syncDirectory(join(path, '..')));
    else await this.#identity.confirm();
  }

  async *list(): AsyncGenerator<StoredObject, void, undefined> {
    await this.#identity.confirm();
    for await (const shard of names(this.#root, shardPattern)) {
      for await (const folder of names(join(this.#root, shard), shardPattern)) {
        for await (const name of names(join(this.#root, shard, folder), objectPattern)) {
          const found = await translated(() => unlessAbsent(stat(join(this.#root, shard, folder, name))));
          if (!found) continue;
          const [, storageId, temporary] = objectPattern.exec(name)!;
          yield { storageId: storageId!, sizeBytes: found.size, modifiedMs: found.mtimeMs, isComplete: !temporary };
        }
      }
    }
  }

  async check(): Promise<void> {
    await this.#identity.confirm();
    await translated(() => access(this.#root, constants.R_OK | constants.W_OK | constants.X_OK));
    const { bavail } = await translated(() => statfs(this.#root));
    if (bavail === 0) throw new KvError('unavailable', `no space left in ${this.#root}`, 'no-space');
  }
}

class FileWriter implements ExternalWriter {
  readonly #root: string;
  readonly #path: string;
  readonly #identity: StorageIdentity;
  readonly #batches = new BatchedWrites(writeBytes, (pieces, bytes) => translated(() => this.#append(pieces, bytes)));
  #handle: FileHandle | undefined;
  #writtenBytes = 0;

  constructor(root: string, storageId: string, identity: StorageIdentity) {
    this.#root = root;
    this.#path = pathOf(root, storageId);
    this.#identity = identity;
  }

  write(bytes: Buffer): Promise<void> | undefined {
    return this.#batches.add(bytes);
  }

  async finish(): Promise<void> {
    await this.#batches.end();
    await translated(async () => {
      const handle = (this.#handle ??= await this.#create());
      await handle.sync();
      const { size } = await handle.stat();
      if (size !== this.#writtenBytes)
        throw new KvError('unavailable', `a file has ${size} bytes after ${this.#writtenBytes} were written`, 'io');
      this.#handle = undefined;
      // Some network file systems tell only now that there was no room.
      await handle.close();
      await this.#publish();
    });
    // Had it been unmounted meanwhile, the file would be somewhere else.
    await this.#identity.confirm();
  }

  async abort(): Promise<boolean> {
    await this.#batches.stop();
    await this.#handle?.close().catch(() => {});
    this.#handle = undefined;
    await unlink(this.#path + temporarySuffix).catch(() => {});
    return true;
  }

  async #append(pieces: Buffer[], bytes: number): Promise<void> {
    const handle = (this.#handle ??= await this.#create());
    this.#writtenBytes += bytes;
    let { bytesWritten } = await handle.writev(pieces);
    if (bytesWritten === bytes) return;
    const rest = Buffer.concat(pieces, bytes);
    while (bytesWritten < bytes) bytesWritten += (await handle.write(rest, bytesWritten)).bytesWritten;
  }

  async #create(): Promise<FileHandle> {
    await this.#identity.confirm();
    await mkdir(join(this.#path, '..'), { recursive: true, mode: 0o750 });
    return open(this.#path + temporarySuffix, 'wx', 0o640);
  }

  async #publish(): Promise<void> {
    try {
      await rename(this.#path + temporarySuffix, this.#path);
    } catch (error) {
      // A network file system that sent the request twice says that it is not there, when the first one did it.
      const found = codeOf(error) === 'ENOENT' ? await unlessAbsent(stat(this.#path)) : undefined;
      if (found?.size !== this.#writtenBytes) throw error;
    }
    // The folders may be new as well, made here or by another node a moment ago.
    await Promise.all([join(this.#path, '..'), join(this.#path, '../..'), this.#root].map(syncDirectory));
  }
}

function pathOf(root: string, storageId: string): string {
  return join(root, storageId.slice(0, 2), storageId.slice(2, 4), storageId);
}

async function writeMark(root: string, mark: string, text: string, random: Random): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o750 });
  const temporary = `${mark}.${random.bytes(6).toString('hex')}${temporarySuffix}`;
  const handle = await open(temporary, 'wx', 0o640);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, mark);
  await syncDirectory(root);
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function readAt(handle: FileHandle, position: number, end: number): Promise<Buffer> {
  const length = Math.min(readBytes, end - position);
  const { bytesRead, buffer } = await translated(() => handle.read(Buffer.allocUnsafe(length), 0, length, position));
  if (bytesRead === 0) throw new ExternalDamaged(`its file ends at ${position}`);
  return buffer.subarray(0, bytesRead);
}

async function* names(path: string, pattern: RegExp): AsyncGenerator<string, void, undefined> {
  const directory = await translated(() => unlessAbsent(opendir(path)));
  if (!directory) return;
  for await (const { name } of directory) if (pattern.test(name)) yield name;
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code;

async function unlessAbsent<T>(done: Promise<T>): Promise<T | undefined> {
  try {
    return await done;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Runs `work`; what the file system refuses is KvError `unavailable`. */
async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = codeOf(error);
    if (error instanceof KvError || error instanceof ExternalDamaged || typeof code !== 'string') throw error;
    const reason = ['ENOSPC', 'EDQUOT'].includes(code) ? 'no-space' : ['EIO', 'EROFS'].includes(code) ? 'io' : 'outage';
    throw new KvError('unavailable', `the blob files can't be used: ${(error as Error).message}`, reason, { cause: error });
  }
}
