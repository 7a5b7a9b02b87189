/** What the text files of dialogs have in common, whatever protocol they speak: steps, escapes, patterns. */

export class DialogFailure extends Error {
  override readonly name = 'DialogFailure';
}

/** Runs each step of a dialog: its lines but for empty ones and comments. Throws DialogFailure with the line that went wrong. */
export async function runSteps(dialog: string, step: (text: string) => Promise<void>): Promise<void> {
  for (const [at, line] of dialog.split('\n').entries()) {
    const text = line.trimEnd();
    if (text === '' || text.startsWith('#')) continue;
    try {
      await step(text);
    } catch (error) {
      throw new DialogFailure(`line ${at + 1}: ${text}\n${(error as Error).message}`, { cause: error });
    }
  }
}

/** `\r`, `\n`, `\0`, `\\` and `\xHH` as what they stand for. */
export function withEscapes(text: string): string {
  return text.replace(/\\(?:r|n|0|\\|x([0-9a-fA-F]{2}))/g, (code, hex?: string) => {
    if (hex) return String.fromCharCode(Number.parseInt(hex, 16));
    return { '\\r': '\r', '\\n': '\n', '\\0': '\0', '\\\\': '\\' }[code]!;
  });
}

/** Words that patterns keep (`{{name}}`) and later lines ask for (`{{=name}}`). */
export class KeptWords {
  readonly #kept = new Map<string, string>();

  fill(text: string): string {
    return text.replace(/\{\{=(\w+)\}\}/g, (_, name: string) => this.#kept.get(name) ?? '');
  }

  /** Whether a line is what `pattern` says; then its words are kept. `word`: source of the expression for one. */
  matcher(pattern: string, word: string): (line: string) => boolean {
    const names: string[] = [];
    const source = withEscapes(pattern)
      .split(/(\.\.\.|\{\{\w+\}\})/)
      .map((piece) => {
        if (piece === '...') return '[^]*';
        const keeping = /^\{\{(\w+)\}\}$/.exec(piece);
        if (!keeping) return piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
        names.push(keeping[1]!);
        return `(${word})`;
      })
      .join('');
    const regex = new RegExp(`^${source}$`);
    return (line) => {
      const match = regex.exec(line);
      if (!match) return false;
      for (const [i, name] of names.entries()) this.#kept.set(name, match[i + 1]!);
      return true;
    };
  }
}
