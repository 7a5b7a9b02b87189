/** A node can't start; `message` is a sentence for its operator. In a file of its own so that the command line need not load a node to know it. */
export class StartError extends Error {
  override readonly name = 'StartError';
}
