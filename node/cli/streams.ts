/** Standard output and error of a command whose reader may go away before it is done. */

/**
 * For an operation's output: whoever closes the pipe has seen enough (`starling queue list | head`); what can't be written otherwise
 * (a full disk) makes exit code 1.
 */
export function tolerateClosedOutput(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') process.exitCode = 1;
    });
  }
}
