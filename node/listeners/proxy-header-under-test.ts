/** Version 2 headers for tests, the wrong ones too. */

export interface BinaryHeader {
  /** Default 0x21: version 2, PROXY; 0x20 is LOCAL. */
  versionAndCommand?: number;
  /** 0x11 = TCP over IPv4, 0x21 = TCP over IPv6, 0 = unknown. */
  family: number;
  payload: Buffer;
}

export function binaryHeader({ versionAndCommand = 0x21, family, payload }: BinaryHeader): Buffer {
  const head = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
  const rest = Buffer.from([versionAndCommand, family, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([head, rest, payload]);
}

/** The header of a client of IPv4, on its way to 198.51.100.1:25. */
export function headerOfClient(address: string, port: number): Buffer {
  const addresses = [...address.split('.').map(Number), 198, 51, 100, 1];
  return binaryHeader({ family: 0x11, payload: Buffer.from([...addresses, port >> 8, port & 0xff, 0, 25]) });
}

export const localHeader = binaryHeader({ versionAndCommand: 0x20, family: 0, payload: Buffer.alloc(0) });
