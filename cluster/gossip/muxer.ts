/**
 * Yamux that doesn't throw when it gives up, and that grants windows thriftily. As it comes, it answers every single data frame with a frame that grants
 * the sender the same bytes again: twice the frames, and for small messages nearly twice the work. Like other implementations, this one grants once half
 * of the window is used up.
 */
import { yamux } from '@chainsafe/libp2p-yamux';
import { sendShort, takeShortcut } from './shortcut.js';

type YamuxFactory = ReturnType<typeof yamux>;

/** What of a stream's inside is looked at. */
interface Windowed {
  state: number;
  recvWindow: number;
  recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

/** `StreamState.Established`: before, a grant also opens the stream. */
const established = 3;

/** Does nothing to a stream that is not made as expected. */
function grantThriftily(stream: object): void {
  const windowed = stream as Partial<Windowed>;
  const grant = windowed.sendWindowUpdate?.bind(stream);
  if (!grant || typeof windowed.recvWindow !== 'number' || typeof windowed.recvWindowCapacity !== 'number') return;
  windowed.sendWindowUpdate = () => {
    if (windowed.state === established && windowed.recvWindowCapacity! > windowed.recvWindow! / 2) return;
    grant();
  };
}

export function thriftyYamux(init: Parameters<typeof yamux>[0]): YamuxFactory {
  const make = yamux(init);
  return () => {
    const factory = make();
    return {
      protocol: factory.protocol,
      createStreamMuxer: (connection) => {
        const muxer = factory.createStreamMuxer(connection);
        takeShortcut(connection, muxer);
        const abort = muxer.abort.bind(muxer);
        muxer.abort = (error) => {
          try {
            abort(error);
          } catch {
            // It says goodbye over a connection that may be closed already, and throws then; where a peer's nonsense is handled that would end the process.
          }
        };
        const create = muxer.createStream.bind(muxer);
        muxer.createStream = async (options) => {
          const stream = await create(options);
          grantThriftily(stream);
          sendShort(stream, muxer);
          return stream;
        };
        const inside = muxer as unknown as { onRemoteStream?(stream: object): void };
        const accept = inside.onRemoteStream?.bind(muxer);
        // Not there in a later version: its streams grant as they like.
        if (accept) {
          inside.onRemoteStream = (stream) => {
            grantThriftily(stream);
            sendShort(stream, muxer);
            accept(stream);
          };
        }
        return muxer;
      },
    };
  };
}
