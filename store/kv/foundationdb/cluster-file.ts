/** The cluster file: which cluster, and where its coordinators are. Checked here so that a mistake has a sentence instead of a hang. */
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { KvError } from '../contract.js';

export interface ClusterFile {
  /** `description:id`, the name of the cluster. */
  readonly name: string;
  /** `host:port`, perhaps with `:tls`. */
  readonly coordinators: readonly string[];
  /** Whether the client can write new coordinators into it, as it does when an operator moves them. */
  readonly isWritable: boolean;
}

/** The binding cuts longer paths off without a word. */
const maxPathBytes = 1_023;

/** Reads and checks a cluster file. Throws `unavailable` (`io`) with what is wrong with it. */
export async function readClusterFile(path: string): Promise<ClusterFile> {
  if (Buffer.byteLength(path) > maxPathBytes) throw unusable(path, `its path is longer than ${maxPathBytes} bytes`);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw unusable(path, code === 'ENOENT' ? 'there is no such file' : `it can't be read (${code ?? String(error)})`, error);
  }
  return { ...parseClusterFile(text, path), isWritable: await isWritable(path) };
}

/** The content of a cluster file: one line `description:id@host:port,host:port…`; lines that begin with `#` are comments. */
export function parseClusterFile(text: string, path: string): Pick<ClusterFile, 'name' | 'coordinators'> {
  const lines = text.split('\n').map((line) => line.replace(/#.*$/, '').trim());
  const content = lines.filter((line) => line !== '').join('');
  if (content === '') throw unusable(path, 'it is empty');
  const found = /^([A-Za-z0-9_]+:[A-Za-z0-9]+)@(.+)$/.exec(content);
  if (!found) throw unusable(path, 'its line is not of the form description:id@host:port');
  const coordinators = found[2]!.split(',').map((address) => address.trim());
  const bad = coordinators.find((address) => !isAddress(address));
  if (bad !== undefined) throw unusable(path, `"${bad}" is no coordinator of the form host:port`);
  return { name: found[1]!, coordinators };
}

function isAddress(text: string): boolean {
  const found = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})(:tls)?$/.exec(text);
  return found !== null && Number(found[2]) > 0 && Number(found[2]) < 65_536;
}

async function isWritable(path: string): Promise<boolean> {
  try {
    // The client writes a new file beside it and renames.
    await Promise.all([access(path, constants.W_OK), access(dirname(path), constants.W_OK)]);
    return true;
  } catch {
    return false;
  }
}

function unusable(path: string, why: string, cause?: unknown): KvError {
  return new KvError('unavailable', `the FoundationDB cluster file ${path} can't be used: ${why}`, 'io', { cause });
}
