/** How far a long command is: a bar on a terminal, lines of JSON otherwise; always on standard error, so that results can be piped. */
import { type Options, SingleBar } from 'cli-progress';
import type { TransferProgress } from '../../../store/transfer/index.js';

const lineEveryMs = 1_000;
const redrawsPerSecond = 10;

export interface ProgressDisplay {
  update(progress: TransferProgress): void;
  /** Takes the bar away, or leaves it where it is. */
  stop(): void;
}

export function createProgress(options: { json: boolean; stream?: NodeJS.WriteStream }): ProgressDisplay {
  const stream = options.stream ?? process.stderr;
  return stream.isTTY && !options.json ? new BarDisplay(stream) : new LineDisplay(stream);
}

const megabytes = (bytes: number) => (bytes / 1_000_000).toFixed(1);

class BarDisplay implements ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  #bar: SingleBar | undefined;
  #stage: string | undefined;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  update({ stage, keys, bytes, totalBytes, isEstimate }: TransferProgress): void {
    // An estimate that was too low must not make a bar that is longer than whole.
    const total = Math.max(totalBytes ?? bytes, bytes, 1);
    if (stage !== this.#stage) {
      this.stop();
      this.#stage = stage;
      this.#bar = new SingleBar(this.#format(stage, totalBytes !== undefined, isEstimate ?? false));
      this.#bar.start(total, bytes, { keys, megabytes: megabytes(bytes), stage: stage.padEnd(9) });
    }
    this.#bar!.setTotal(total);
    this.#bar!.update(bytes, { keys, megabytes: megabytes(bytes) });
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #format(stage: TransferProgress['stage'], hasTotal: boolean, isEstimate: boolean): Options {
    const counts = `{keys} ${stage === 'objects' ? 'blobs' : 'keys'}, {megabytes} MB`;
    const format = hasTotal
      ? `{stage} {bar} ${isEstimate ? '~' : ''}{percentage} % | ${counts} | ETA {eta_formatted}`
      : `{stage} ${counts}`;
    return {
      format,
      stream: this.#stream,
      fps: redrawsPerSecond,
      hideCursor: true,
      barsize: 30,
      barCompleteChar: '█',
      barIncompleteChar: '░',
    };
  }
}

class LineDisplay implements ProgressDisplay {
  readonly #stream: NodeJS.WriteStream;
  #stage: string | undefined;
  #writtenAtMs = 0;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  update(progress: TransferProgress): void {
    const nowMs = performance.now();
    if (progress.stage === this.#stage && nowMs - this.#writtenAtMs < lineEveryMs) return;
    this.#stage = progress.stage;
    this.#writtenAtMs = nowMs;
    this.#stream.write(`${JSON.stringify(progress)}\n`);
  }

  stop(): void {}
}
