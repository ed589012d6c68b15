import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseApiKey } from '../../src/server/access/api-key.ts'
import { changeKeyFile, readKeyFile } from '../../src/server/access/key-file.ts'
import { KeyRing } from '../../src/server/access/key-ring.ts'
import { temporaryFolder } from '../server-harness.ts'
import { makeKey, revokeKey } from '../support/keys.ts'

test('the key file has no secret in it, mode 0600, and nothing beside it once it is written', async (t) => {
  const folder = await temporaryFolder(t)
  const path = join(folder, 'keys.json')
  const { text } = await makeKey(path, ['admin'])
  const content = await readFile(path, 'utf8')
  assert.ok(!content.includes(parseApiKey(text)?.secret ?? ''))
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  await assert.rejects(stat(`${path}.new`), { code: 'ENOENT' })
})

test('writers at the same time lose no key', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  await Promise.all(Array.from({ length: 12 }, () => makeKey(path, ['read'])))
  assert.equal(new Set(readKeyFile(path).map(({ id }) => id)).size, 12)
})

test('a change that fails leaves the file as it was, and the next one succeeds', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  await makeKey(path, ['read'])
  const before = await readFile(path, 'utf8')
  await assert.rejects(
    changeKeyFile(path, () => {
      throw new Error('no')
    }),
    /no/,
  )
  assert.equal(await readFile(path, 'utf8'), before)
  await makeKey(path, ['read'])
  assert.equal(readKeyFile(path).length, 2)
})

test('a writer that was killed is told of, not overrun', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  await writeFile(`${path}.new`, '')
  await assert.rejects(makeKey(path, ['read']), { code: 'LOCKED', message: /keys\.json\.new/ })
})

test('a key file that others may write, or that is not one, is refused', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  await makeKey(path, ['admin'])
  await chmod(path, 0o620)
  assert.throws(() => readKeyFile(path), { code: 'INVALID_OPTION', message: /chmod 600/ })
  await chmod(path, 0o600)
  const good = JSON.parse(await readFile(path, 'utf8'))
  for (const bad of [
    '',
    '[]',
    '{"version":2,"keys":[]}',
    JSON.stringify({ ...good, keys: [{ ...good.keys[0], scopes: ['root'] }] }),
    JSON.stringify({ ...good, keys: [{ ...good.keys[0], sha256: '00' }] }),
    JSON.stringify({ ...good, keys: [{ ...good.keys[0], expiresAtMs: '1' }] }),
    JSON.stringify({ ...good, keys: [null] }),
  ]) {
    await writeFile(path, bad)
    assert.throws(() => readKeyFile(path), { code: 'CORRUPT' }, bad)
  }
})

test('a secret is compared once, whole and in constant time, also where the id is not known', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  const { text } = await makeKey(path, ['admin'])
  const ring = new KeyRing({ path, now: () => 0, onDamage: assert.ifError })
  const compare = t.mock.method(crypto, 'timingSafeEqual')
  syncBuiltinESMExports()
  t.after(() => {
    compare.mock.restore()
    syncBuiltinESMExports()
  })
  const last = text.endsWith('A') ? 'B' : 'A'
  const wrong = [`${text.slice(0, -1)}${last}`, text.replace(/_[a-z0-9]{12}_/, '_aaaaaaaaaaaa_')]
  for (const key of wrong) assert.equal(ring.authenticate(key), null)
  assert.ok(ring.authenticate(text))
  assert.equal(compare.mock.callCount(), 3)
  for (const { arguments: sides } of compare.mock.calls)
    assert.deepEqual(
      sides.map((side) => (side as Uint8Array).byteLength),
      [32, 32],
    )
})

test('keys that are made, revoked or ended count at the next look, and a file that is gone or damaged lets nobody in', async (t) => {
  const path = join(await temporaryFolder(t), 'keys.json')
  let nowMs = 1_000
  const damages: unknown[] = []
  const ring = new KeyRing({ path, now: () => nowMs, onDamage: (error) => damages.push(error) })
  assert.equal(ring.isGuarded, false)
  const first = await makeKey(path, ['admin'])
  const second = await makeKey(path, ['read'], { expiresAtMs: 2_000 })
  assert.equal(ring.authenticate(first.text), null)
  ring.refresh()
  assert.equal(ring.isGuarded, true)
  assert.deepEqual([ring.authenticate(first.text)?.id, ring.authenticate(second.text)?.id], [first.id, second.id])
  nowMs = 2_000
  assert.equal(ring.authenticate(second.text), null)
  await revokeKey(path, first.id)
  ring.refresh()
  assert.equal(ring.authenticate(first.text), null)
  assert.equal(ring.hasLiveKey, false)
  const third = await makeKey(path, ['read'])
  ring.refresh()
  assert.ok(ring.authenticate(third.text))
  const good = await readFile(path, 'utf8')
  await writeFile(path, 'x')
  ring.refresh()
  ring.refresh()
  assert.deepEqual([ring.isGuarded, ring.authenticate(third.text), damages.length], [true, null, 1])
  await writeFile(path, good)
  ring.refresh()
  assert.ok(ring.authenticate(third.text))
  await rm(path)
  ring.refresh()
  assert.deepEqual([ring.isGuarded, ring.authenticate(third.text)], [true, null])
})
