/**
 * Which addresses a callback may be sent to: public ones, and those of an explicit list. Jobs say where callbacks go, so
 * without this anybody who may add a job could make the server call what only it can reach (SSRF).
 *
 * Judged are addresses, never names, in the bytes that a connection is made to: whatever notation they were written in
 * (decimal, octal, hexadecimal, shortened), the URL parser or the resolver has made one form of it by then. IPv6 is
 * refused unless it is global unicast (2000::/3), and within that where an address stands for another one (6to4, Teredo,
 * NAT64) or for none.
 */
import { BlockList, isIP } from 'node:net'
import { invalidOption } from '../options-check.ts'

/** Ranges that nobody on the public network has, and addresses of clouds for their own machines. */
const REFUSED_V4 = [
  ['0.0.0.0/8', 'this network'],
  ['10.0.0.0/8', 'private'],
  ['100.64.0.0/10', 'shared by carriers'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link-local, where clouds keep their metadata'],
  ['168.63.129.16/32', 'the platform of a cloud'],
  ['172.16.0.0/12', 'private'],
  ['192.0.0.0/24', 'reserved'],
  ['192.0.2.0/24', 'for documentation'],
  ['192.31.196.0/24', 'reserved'],
  ['192.52.193.0/24', 'reserved'],
  ['192.88.99.0/24', 'a relay of 6to4'],
  ['192.168.0.0/16', 'private'],
  ['192.175.48.0/24', 'reserved'],
  ['198.18.0.0/15', 'for benchmarks'],
  ['198.51.100.0/24', 'for documentation'],
  ['203.0.113.0/24', 'for documentation'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved'],
] as const
const REFUSED_V6 = [
  ['2001::/23', 'reserved, or Teredo'],
  ['2001:db8::/32', 'for documentation'],
  ['2002::/16', '6to4'],
  ['2620:4f:8000::/48', 'reserved'],
  ['3fff::/20', 'for documentation'],
] as const
const GLOBAL_V6 = '2000::/3'

interface Range {
  readonly list: BlockList
  readonly what: string
}

const REFUSED: Readonly<Record<4 | 6, readonly Range[]>> = { 4: ranges(REFUSED_V4), 6: ranges(REFUSED_V6) }
const GLOBAL = listOf([GLOBAL_V6])
const MAPPED = listOf(['::ffff:0:0/96'])

export interface AddressPolicy {
  /** Why there may be no connection to this address; null: there may. */
  refuse(address: string): string | null
}

/** `allow`: addresses and ranges (`10.0.0.0/8`, `fd00::/8`) that may be called although they are not public. */
export function createAddressPolicy(allow: readonly string[]): AddressPolicy {
  const allowed = listOf(allow)
  return {
    refuse(address) {
      const version = isIP(address)
      if (version === 0 || address.includes('%')) return `${address.slice(0, 80)} is no address`
      const family = version === 4 ? 'ipv4' : 'ipv6'
      if (allowed.check(address, family)) return null
      const what = describe(address, version as 4 | 6)
      return what === null ? null : `${address} is not public (${what})`
    },
  }
}

function describe(address: string, version: 4 | 6): string | null {
  if (version === 6) {
    if (MAPPED.check(address, 'ipv6')) return 'IPv4 within IPv6'
    if (!GLOBAL.check(address, 'ipv6')) return 'not global unicast'
  }
  const family = version === 4 ? 'ipv4' : 'ipv6'
  return REFUSED[version].find(({ list }) => list.check(address, family))?.what ?? null
}

function ranges(rows: readonly (readonly [string, string])[]): readonly Range[] {
  return rows.map(([range, what]) => ({ list: listOf([range]), what }))
}

function listOf(entries: readonly string[]): BlockList {
  const list = new BlockList()
  for (const entry of entries) addTo(list, entry)
  return list
}

function addTo(list: BlockList, entry: string): void {
  const [address = '', prefix, ...rest] = entry.split('/')
  const version = isIP(address)
  const bits = prefix === undefined ? (version === 4 ? 32 : 128) : Number(prefix)
  const isPrefix = prefix === undefined || /^\d{1,3}$/.test(prefix)
  if (version === 0 || address.includes('%') || rest.length > 0 || !isPrefix || bits > (version === 4 ? 32 : 128))
    throw invalidOption('an entry of allow', entry, 'an address or a range, such as 10.0.0.0/8 or fd00::/8')
  list.addSubnet(address, bits, version === 4 ? 'ipv4' : 'ipv6')
}
