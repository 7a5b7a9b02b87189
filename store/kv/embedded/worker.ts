/** The writer thread's entry: takes batches from the main thread one at a time and answers when they are durable. */
import { parentPort, workerData } from 'node:worker_threads';
import type { FromWriter, ToWriter, WriterSettings } from './messages.js';
import { failureKind } from './sqlite.js';
import { BatchFailure, Writer } from './writer.js';

const port = parentPort!;
const settings = workerData as WriterSettings;

function answer(message: FromWriter, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

function commit(writer: Writer, version: number, buffer: ArrayBuffer, length: number): void {
  try {
    writer.commit(version, buffer, length);
  } catch (error) {
    if (!(error instanceof BatchFailure)) throw error;
    const { kind, message, visibleVersion } = error;
    answer({ type: 'failed', version, kind, message, visibleVersion, buffer }, [buffer]);
    return;
  }
  answer({ type: 'done', version, buffer }, [buffer]);
  tidy(() => writer.checkpointIfDue());
}

/** Work that no commit depends on. */
function tidy(work: () => void): void {
  try {
    work();
  } catch (error) {
    answer({ type: 'warning', message: error instanceof Error ? error.message : String(error) });
  }
}

function start(): void {
  let writer: Writer;
  try {
    writer = new Writer(settings);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer({ type: 'start-failed', kind: failureKind(error, false, settings.file), message });
    return;
  }
  port.on('message', (message: ToWriter) => {
    if (message.type === 'commit') return commit(writer, message.version, message.buffer, message.length);
    tidy(() => writer.close());
    answer({ type: 'closed' });
    port.close();
  });
  answer({ type: 'ready', version: writer.version });
}

start();
