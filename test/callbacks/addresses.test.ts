import { strict as assert } from 'node:assert'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { createAddressPolicy } from '../../src/callbacks/addresses.ts'
import { post } from '../../src/callbacks/post.ts'
import { isSluiceError } from '../../src/errors.ts'

/** First and last of what is not public, as numbers: written down apart from the code under test. */
const NOT_PUBLIC = [
  ['0.0.0.0', '0.255.255.255'],
  ['10.0.0.0', '10.255.255.255'],
  ['100.64.0.0', '100.127.255.255'],
  ['127.0.0.0', '127.255.255.255'],
  ['168.63.129.16', '168.63.129.16'],
  ['169.254.0.0', '169.254.255.255'],
  ['172.16.0.0', '172.31.255.255'],
  ['192.0.0.0', '192.0.0.255'],
  ['192.0.2.0', '192.0.2.255'],
  ['192.31.196.0', '192.31.196.255'],
  ['192.52.193.0', '192.52.193.255'],
  ['192.88.99.0', '192.88.99.255'],
  ['192.168.0.0', '192.168.255.255'],
  ['192.175.48.0', '192.175.48.255'],
  ['198.18.0.0', '198.19.255.255'],
  ['198.51.100.0', '198.51.100.255'],
  ['203.0.113.0', '203.0.113.255'],
  ['224.0.0.0', '255.255.255.255'],
].map(([first = '', last = '']) => [toNumber(first), toNumber(last)] as const)

function toNumber(dotted: string): number {
  return dotted.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

function toDotted(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.')
}

function isPublic(value: number): boolean {
  return !NOT_PUBLIC.some(([first, last]) => value >= first && value <= last)
}

const anyV4 = fc.nat({ max: 0xffffffff })
/** Addresses that are not public, and their neighbours on both sides. */
const edgeV4 = fc
  .constantFrom(...NOT_PUBLIC.flat())
  .chain((edge) => fc.constantFrom(edge - 1, edge, edge + 1))
  .map((value) => Math.min(Math.max(value, 0), 0xffffffff))
const insideV4 = fc.constantFrom(...NOT_PUBLIC).chain(([first, last]) => fc.integer({ min: first, max: last }))
const v4 = fc.oneof(anyV4, edgeV4, insideV4)

/** Every way in which URLs may write an IPv4 address. */
function notations(value: number): string[] {
  const [a, b, c, d] = toDotted(value).split('.').map(Number) as [number, number, number, number]
  const octal = (part: number): string => `0${part.toString(8)}`
  const hex = (part: number): string => `0x${part.toString(16)}`
  return [
    String(value),
    hex(value),
    octal(value),
    [a, b, c, d].map(octal).join('.'),
    [a, b, c, d].map(hex).join('.'),
    `${hex(a)}.${octal(b)}.${c}.${d}`,
    `${a}.${(b << 16) | (c << 8) | d}`,
    `${a}.${b}.${(c << 8) | d}`,
    `${hex(a)}.${octal((b << 16) | (c << 8) | d)}`,
    `${a}.${b}.${c}.${d}.`,
    `${a}%2e${b}.${c}.${d}`,
  ]
}

function groups(bytes: readonly number[]): string {
  return Array.from({ length: 8 }, (_, i) =>
    (((bytes[i * 2] as number) << 8) | (bytes[i * 2 + 1] as number)).toString(16),
  ).join(':')
}

const policy = createAddressPolicy([])
const NEVER = new AbortController().signal

describe('addresses of callbacks', () => {
  test('exactly the public IPv4 addresses may be called', () => {
    fc.assert(
      fc.property(v4, (value) => {
        assert.equal(policy.refuse(toDotted(value)) === null, isPublic(value), toDotted(value))
      }),
      { numRuns: 5_000 },
    )
  })

  test('an address that is not public is refused in every notation that a URL may have, and nothing is resolved', async () => {
    await fc.assert(
      fc.asyncProperty(insideV4, fc.nat({ max: 10 }), async (value, which) => {
        const notation = notations(value)[which] as string
        const url = new URL(`http://${notation}:9/`)
        assert.equal(url.hostname.replace(/\.$/, ''), toDotted(value))
        const posted = await post(
          { url, headers: {}, body: Buffer.from('{}') },
          {
            policy,
            timeoutMs: 5_000,
            signal: NEVER,
            lookup: async (name) => {
              throw new Error(`${name} was resolved`)
            },
          },
        )
        assert.equal(posted.status, 'refused', notation)
      }),
      { numRuns: 500 },
    )
  })

  test('IPv6 that stands for an IPv4 address is refused, whichever it is', () => {
    const within: ((v4: readonly number[], rest: readonly number[]) => number[])[] = [
      (v4) => [...zeros(10), 0xff, 0xff, ...v4],
      (v4) => [...zeros(12), ...v4],
      (v4) => [...zeros(8), 0xff, 0xff, 0, 0, ...v4],
      (v4) => [0, 0x64, 0xff, 0x9b, ...zeros(8), ...v4],
      (v4, rest) => [0, 0x64, 0xff, 0x9b, 0, 1, ...rest.slice(0, 6), ...v4],
      (v4, rest) => [0x20, 0x02, ...v4, ...rest.slice(0, 10)],
      (v4, rest) => [0x20, 0x01, 0, 0, ...rest.slice(0, 8), ...v4.map((byte) => byte ^ 255)],
    ]
    fc.assert(
      fc.property(v4, fc.constantFrom(...within), bytesOf(12), (value, embed, rest) => {
        const dotted = toDotted(value)
        const text = groups(embed(dotted.split('.').map(Number), rest))
        assert.notEqual(policy.refuse(text), null, text)
        const { hostname } = new URL(`http://[${text}]/`)
        assert.notEqual(policy.refuse(hostname.slice(1, -1)), null, hostname)
      }),
      { numRuns: 2_000 },
    )
    assert.notEqual(policy.refuse('::ffff:8.8.8.8'), null)
    assert.notEqual(policy.refuse('::ffff:127.0.0.1'), null)
  })

  test('IPv6 outside of global unicast is refused, and so are its ranges for other ends', () => {
    fc.assert(
      fc.property(bytesOf(16), (bytes) => {
        const isGlobal = ((bytes[0] as number) & 0xe0) === 0x20
        if (!isGlobal) assert.notEqual(policy.refuse(groups(bytes)), null, groups(bytes))
      }),
      { numRuns: 2_000 },
    )
    for (const address of ['::', '::1', 'fe80::1', 'fec0::1', 'fc00::1', 'fd00:ec2::254', 'ff02::1', '2001:db8::1'])
      assert.notEqual(policy.refuse(address), null, address)
    for (const address of ['3fff::1', '100::1', '5f00::1', '2001:20::1', '2001::1', '2002:7f00:1::', 'fe80::1%eth0'])
      assert.notEqual(policy.refuse(address), null, address)
    for (const address of ['2606:4700:4700::1111', '2a00:1450:4001:80b::200e', '2001:4860:4860::8888', '8.8.8.8'])
      assert.equal(policy.refuse(address), null, address)
  })

  test('what is no address is refused', () => {
    for (const address of ['', 'localhost', '1.2.3', '1.2.3.4.5', '0x7f.1', '[::1]', '1.2.3.4 ', '::1%lo'])
      assert.notEqual(policy.refuse(address), null, address)
  })

  test('the list opens what is on it and nothing beside it', () => {
    const open = createAddressPolicy(['10.1.0.0/16', '127.0.0.1', 'fd00::/8', '192.168.7.7/24'])
    for (const address of ['10.1.2.3', '127.0.0.1', 'fd12::1', '192.168.7.1']) assert.equal(open.refuse(address), null)
    for (const address of ['10.2.0.0', '127.0.0.2', 'fe80::1', '192.168.8.1', '::1'])
      assert.notEqual(open.refuse(address), null, address)
  })

  test('a list with an entry that is no range is refused by its text', () => {
    for (const entry of [
      '',
      'localhost',
      '10.0.0.0/33',
      '10.0.0.0/',
      '10.0.0.0/8/8',
      '::/129',
      '10.0.0.0/-1',
      '10.0.0.0/1e1',
    ])
      assert.throws(
        () => createAddressPolicy([entry]),
        (error) => isSluiceError(error, 'INVALID_OPTION'),
        entry,
      )
  })
})

function zeros(count: number): number[] {
  return new Array<number>(count).fill(0)
}

function bytesOf(count: number): fc.Arbitrary<number[]> {
  return fc.array(fc.nat({ max: 255 }), { minLength: count, maxLength: count })
}
