/** A peer that knows the cluster's secret and keeps to no rule: for tests of what others make of it. */
import { Packr } from 'msgpackr';
import { silentLogger, systemClock, systemRandom } from '../../ops/telemetry/index.js';
import type { GossipMember, HostAndPort, Topic } from './contract.js';
import { FrameReader, frameKind, pingFrame, topicOfFrame } from './frames.js';
import { Gatekeeper } from './gatekeeper.js';
import { createHost, multiaddr } from './host.js';
import { deriveNetworkKeys, protocolNames } from './keys.js';
import type { Connection, GossipRpc, Host, RpcReceiver, Stream } from './libp2p-types.js';
import { RareWarnings } from './rarely.js';
import { nodeIdOf, secret } from './test-nodes.js';

const packr = new Packr({ useRecords: false });
const names = protocolNames(deriveNetworkKeys(secret).tag);

export class RawPeer {
  /** Bytes of published messages that came by gossipsub. */
  readonly published: Uint8Array[] = [];
  /** And of those that came straight, to a peer with a lane. */
  readonly straight: Buffer[] = [];
  /** Streams for them that others have opened. */
  readonly lanes: Stream[] = [];

  private constructor(
    readonly host: Host,
    readonly nodeId: string,
  ) {}

  /** `hasLane`: it takes published messages straight. Otherwise it is like a release that knows gossipsub alone. */
  static async start(digit: number, { hasLane = false } = {}): Promise<RawPeer> {
    const common = { clock: systemClock, random: systemRandom, logger: silentLogger };
    let count = 0;
    const host = await createHost(
      { nodeId: nodeIdOf(digit), incarnation: 1, secret, listen: [{ host: '127.0.0.1', port: 0 }], ...common },
      {
        keys: deriveNetworkKeys(secret),
        names,
        gatekeeper: new Gatekeeper(systemClock, new RareWarnings(systemClock, silentLogger)),
        onFound: () => undefined,
        // Nothing is a repetition to it.
        messageId: () => Buffer.from(String(count++)),
      },
    );
    const peer = new RawPeer(host, nodeIdOf(digit));
    const receiver = host.services.pubsub as unknown as RpcReceiver;
    const receive = receiver.handleReceivedRpc.bind(receiver);
    receiver.handleReceivedRpc = async (from, rpc: GossipRpc) => {
      for (const { data } of rpc.messages) if (data) peer.published.push(data);
      await receive(from, rpc);
    };
    await host.start();
    await host.handle(names.direct, (stream, connection) => answerPings(stream, connection));
    if (hasLane) await host.handle(names.published, (stream) => peer.#takeLane(stream));
    for (const topic of ['membership', 'changes', 'control']) host.services.pubsub.subscribe(names.topic(topic));
    return peer;
  }

  #takeLane(stream: Stream): void {
    this.lanes.push(stream);
    const reader = new FrameReader((kind, content) => {
      if (topicOfFrame(kind)) this.straight.push(Buffer.from(content));
    });
    stream.addEventListener('message', ({ data }) => void reader.push(data.subarray()));
  }

  get member(): GossipMember {
    const port = Number(this.host.getMultiaddrs()[0]!.toString().split('/')[4]);
    return { nodeId: this.nodeId, incarnation: 1, peerId: this.host.peerId.toString(), addresses: [{ host: '127.0.0.1', port }] };
  }

  async dial({ port }: HostAndPort): Promise<Connection> {
    return await this.host.dial(multiaddr(`/ip4/127.0.0.1/tcp/${port}`), { force: true });
  }

  async directStream(connection: Connection): Promise<Stream> {
    return await connection.newStream([names.direct]);
  }

  /** The way in for what it publishes straight. */
  async lane(connection: Connection): Promise<Stream> {
    return await connection.newStream([names.published]);
  }

  async publish(topic: Topic | 'unknown', bytes: Uint8Array): Promise<void> {
    await this.host.services.pubsub.publish(names.topic(topic), bytes);
  }

  async stop(): Promise<void> {
    await this.host.stop();
  }
}

/** The one rule that it keeps: otherwise it would be taken for dead. */
function answerPings(stream: Stream, connection: Connection): void {
  let answers: Promise<Stream> | undefined;
  const reader = new FrameReader((kind, content) => {
    if (kind !== frameKind.ping) return;
    answers ??= connection.newStream([names.direct]);
    const pong = pingFrame(frameKind.pong, content.readUInt32BE(0));
    void answers.then((out) => out.send(pong)).catch(() => undefined);
  });
  stream.addEventListener('message', ({ data }) => void reader.push(data.subarray()));
}

export const packed = (...fields: unknown[]): Buffer => packr.pack(fields);

/** A frame of the direct protocol; its length may be a lie. */
export function frame(content: Uint8Array, kind: number = frameKind.message, length = content.length + 1): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 0);
  head[4] = kind;
  return Buffer.concat([head, content]);
}
