/**
 * The client library and its network, of which a process has one: loaded, told its API version, started with the first store and
 * stopped when the process exits. Everything that can be wrong with the installation gets its sentence here.
 */
import { constants } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import type { NativeDatabase, NativeModule } from 'foundationdb/dist/lib/native.js';
import { KvError } from '../contract.js';
import { type ErrorPredicates, fdbCodeOf, fdbCodes } from './errors.js';

export interface ClientOptions {
  /** Path of `libfdb_c.so`. Default: where the dynamic loader finds it. The first store of a process decides. */
  clientLibrary?: string;
  /**
   * A directory of further `libfdb_c` files, of other versions: the client takes whichever speaks the cluster's protocol, so that a
   * cluster can be upgraded under running nodes. The first store of a process decides.
   */
  externalClientDirectory?: string;
}

/** The network of the client library, running. */
export interface FoundationClient extends ErrorPredicates {
  /** To be closed only when nothing is asked of it any more. */
  createDatabase(clusterFile: string): NativeDatabase;
}

/** Numbers of the library's interface that are part of its ABI (`fdb_c_options.g.h`). */
const apiVersion = 720;
const externalClientDirectoryOption = 63;
const retryablePredicate = 50_000;
const mayHaveCommittedPredicate = 50_001;

const install =
  'install the package foundationdb-clients (7.2 or later, of the version of your cluster), or name the path of its libfdb_c in the configuration';

let started: Promise<FoundationClient> | undefined;
let startedWith: ClientOptions = {};

/**
 * The client of this process; started by the first call. Throws `unavailable` (`io`) when the library is not there or does not fit,
 * and when later options ask for another library than the first.
 */
export async function startClient(options: ClientOptions): Promise<FoundationClient> {
  if (!isMainThread) throw unusable('it works on the main thread only');
  if (started) {
    assertSame(options);
    return started;
  }
  startedWith = { ...options };
  started = start(options);
  try {
    return await started;
  } catch (error) {
    // Nothing runs yet: another try may find what was installed meanwhile.
    started = undefined;
    throw error;
  }
}

async function start(options: ClientOptions): Promise<FoundationClient> {
  loadLibrary(options.clientLibrary);
  const native = await importBinding();
  try {
    native.setAPIVersion(apiVersion);
  } catch (error) {
    if (fdbCodeOf(error) !== fdbCodes.apiVersionNotSupported) throw unusable(String(error), error);
    throw unusable(`the library is too old for API version ${apiVersion}; ${install}`, error);
  }
  if (options.externalClientDirectory !== undefined) {
    try {
      native.setNetworkOption(externalClientDirectoryOption, Buffer.from(options.externalClientDirectory));
    } catch (error) {
      throw unusable(`the directory of external clients ${options.externalClientDirectory} can't be used`, error);
    }
  }
  native.startNetwork();
  let open = 0;
  process.once('exit', () => {
    // Stopping waits for the network's thread, and that thread waits for this one to take the answers that it has. With answers
    // on their way, as in a process that gives up in the middle of its work, neither would ever end.
    if (open === 0) native.stopNetwork();
  });
  return {
    createDatabase(clusterFile) {
      const database = native.createDatabase(clusterFile);
      open++;
      return counted(database, () => open--);
    },
    mayHaveCommitted: (code) => native.errorPredicate(mayHaveCommittedPredicate, code),
    isRetryable: (code) => native.errorPredicate(retryablePredicate, code),
  };
}

function counted(database: NativeDatabase, onClose: () => void): NativeDatabase {
  return {
    createTransaction: () => database.createTransaction(),
    setOption: (code, value) => database.setOption(code, value),
    close() {
      database.close();
      onClose();
    },
  };
}

/**
 * Loads the shared library by itself, before the binding that is linked to it: its path can be chosen that way, and when it is missing
 * there is one error instead of the binding's lines on stderr. The library stays loaded although it is no Node addon.
 */
function loadLibrary(path: string | undefined): void {
  const name = path ?? (process.platform === 'darwin' ? 'libfdb_c.dylib' : 'libfdb_c.so');
  try {
    process.dlopen({ exports: {} }, name, constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (/did not self-register/.test(message)) return;
    throw unusable(`its client library can't be loaded (${message}): ${install}`, error);
  }
}

async function importBinding(): Promise<NativeModule> {
  try {
    const { default: module } = await import('foundationdb/dist/lib/native.js');
    // A CommonJS module: what it calls its default is one level down, unless the loader has looked through.
    return module.default ?? (module as unknown as NativeModule);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') {
      throw unusable('the npm package foundationdb is not installed: run npm install with optional dependencies', error);
    }
    throw unusable(`the binding can't be loaded (${message}): ${install}`, error);
  }
}

function assertSame(options: ClientOptions): void {
  for (const name of ['clientLibrary', 'externalClientDirectory'] as const) {
    const wanted = options[name];
    if (wanted === undefined || wanted === startedWith[name]) continue;
    throw unusable(`${name} is ${startedWith[name] ?? 'the default'} in this process already and can't become ${wanted}`);
  }
}

function unusable(why: string, cause?: unknown): KvError {
  return new KvError('unavailable', `FoundationDB can't be used: ${why}`, 'io', { cause });
}
