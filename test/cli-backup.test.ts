import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isSluiceError, open, restore, verify } from '../src/index.ts'
import { runCli, serveCli } from './cli-harness.ts'
import { call, startServer, temporaryFolder } from './server-harness.ts'

/** Every byte of a folder, to show that nothing was changed. */
function fingerprint(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex'),
      ]),
  )
}

test('a backup of a server that is written to comes over HTTP, is whole, and makes a folder', async (t) => {
  const root = await temporaryFolder(t)
  const data = join(root, 'data')
  const { child, url } = await serveCli(t, data)
  const { json: job } = await call(url, 'POST', '/v1/queues/q/jobs', { body: { n: 1 } })
  const file = join(root, 'copy.backup')
  const taken = await runCli(t, ['backup', file, '--url', url, '--json'])
  assert.equal(taken.code, 0, taken.stderr)
  const info = JSON.parse(taken.stdout)
  assert.deepEqual([info.file, info.messages, info.topics], [file, 1, 1])
  // Nothing of it is left on the server, nor beside the file.
  assert.deepEqual(
    readdirSync(data).filter((name) => name.startsWith('sluice-backup')),
    [],
  )
  assert.deepEqual(readdirSync(root).sort(), ['copy.backup', 'data'])
  const again = await runCli(t, ['backup', file, '--url', url])
  assert.equal(again.code, 1)
  assert.match(again.stderr, /there already/)

  const restored = join(root, 'restored')
  const made = await runCli(t, ['restore', file, restored])
  assert.equal(made.code, 0, made.stderr)
  assert.match(made.stdout, /holds what was there at 20\d\d-/)
  const copy = await runCli(t, ['jobs', 'get', job.id, '--data', restored, '--json'])
  assert.equal(JSON.parse(copy.stdout).status, 'queued')
  const refused = await runCli(t, ['restore', file, data])
  assert.match(refused.stderr, /not empty/)
  child.kill('SIGTERM')
  await once(child, 'close')
})

test('a backup of a folder says what it holds; without a folder or a file it says what is missing', async (t) => {
  const root = await temporaryFolder(t)
  const data = join(root, 'data')
  await (await open(data)).close()
  const file = join(root, 'copy.backup')
  const { code, stdout } = await runCli(t, ['backup', file, '--data', data])
  assert.equal(code, 0)
  assert.match(stdout, /0 messages of 0 topics, commit \d+ of .*whole\.$/m)
  for (const [args, said] of [
    [['backup'], /Name one new file/],
    [['backup', file, '--data', join(root, 'none')], /not there/],
    [['restore', file], /the folder to make/],
    [['restore', join(root, 'none'), 'x'], /There is no backup/],
    [['verify'], /Name one/],
    [['verify', join(root, 'none')], /no folder or file/],
    [['verify', data, '--suite'], /for a URL/],
  ] as const) {
    const run = await runCli(t, args)
    assert.equal(run.code, 2)
    assert.match(run.stderr, said)
  }
})

test('the server makes one backup at a time, and none of memory', async (t) => {
  const root = await temporaryFolder(t)
  const { url, sluice } = await startServer(t, {}, join(root, 'data'))
  await sluice.queue('q').addMany(Array.from({ length: 200 }, () => ({ payload: 'x'.repeat(20_000) })))
  const answers = await Promise.all([call(url, 'GET', '/v1/backup'), call(url, 'GET', '/v1/backup')])
  const [one, other] = answers.sort((a, b) => a.status - b.status)
  assert.equal(one?.status, 200)
  assert.equal(Number(one?.headers.get('content-length')) > 4_000_000, true)
  assert.equal(other?.status, 503)
  assert.equal(other?.json.code, 'OVERLOADED')
  const memory = await startServer(t)
  const refused = await memory.call('GET', '/v1/backup')
  assert.deepEqual([refused.status, refused.json.code], [400, 'UNSUPPORTED'])
})

test('verify finds a folder whole, in good order and after a kill, and changes no byte of it', async (t) => {
  const root = await temporaryFolder(t)
  const data = join(root, 'data')
  const { child, url } = await serveCli(t, data)
  for (let n = 0; n < 20; n++) await call(url, 'POST', '/v1/queues/q/jobs', { body: { n, text: 'y'.repeat(3_000) } })
  await assert.rejects(verify(data), (error) => isSluiceError(error, 'LOCKED'))
  child.kill('SIGKILL')
  await once(child, 'close')
  const before = fingerprint(data)
  const killed = await runCli(t, ['verify', data])
  assert.equal(killed.code, 0, killed.stderr)
  assert.match(killed.stdout, /is whole\n/)
  assert.match(killed.stdout, /write-ahead log: whole up to commit \d+, as after a kill/)
  assert.match(killed.stdout, /messages: 20 in \d+ batches of 1 topics/)
  assert.deepEqual(fingerprint(data), before)
  await (await open(data)).close()
  const closed = fingerprint(data)
  const { isGood, kind, findings } = JSON.parse((await runCli(t, ['verify', data, '--json'])).stdout)
  assert.deepEqual([isGood, kind], [true, 'folder'])
  assert.match(findings.find(({ title }: { title: string }) => title === 'last commit').reason, /closed in good order/)
  assert.deepEqual(fingerprint(data), closed)
})

test('verify finds a flipped byte of the database, of the write-ahead log and of a backup, and a missing file', async (t) => {
  const root = await temporaryFolder(t)
  const data = join(root, 'data')
  const sluice = await open(data)
  await sluice.queue('q').addMany(Array.from({ length: 50 }, (_, n) => ({ payload: { n, text: 'z'.repeat(2_000) } })))
  const file = join(root, 'copy.backup')
  await sluice.backup(file)
  await sluice.close()
  const damage = async (path: string, what: RegExp, place: string) => {
    const bytes = readFileSync(path)
    const at = bytes.indexOf('zzzzzzzzzz')
    assert.ok(at > 0)
    bytes.write('a', at)
    writeFileSync(path, bytes)
    const { code, stderr } = await runCli(t, ['verify', place])
    assert.equal(code, 1)
    assert.match(stderr, what)
  }
  assert.equal((await verify(file)).kind, 'backup')
  await damage(file, /CORRUPT.*checksum of page/, file)
  await damage(join(data, 'sluice.db'), /CORRUPT.*checksum of page/, data)
  await restoreWhole()
  async function restoreWhole() {
    const other = join(root, 'other')
    const fresh = await open(other)
    await fresh.queue('q').add('kept')
    await fresh.close()
    assert.equal((await verify(other)).isGood, true)
    const { rmSync } = await import('node:fs')
    rmSync(join(other, 'sluice.guard'))
    await assert.rejects(
      verify(other),
      (error) => isSluiceError(error, 'CORRUPT') && /guard is missing/.test(error.message),
    )
  }
  await assert.rejects(verify(root), (error) => isSluiceError(error, 'INVALID_OPTION'))
})

test('verify asks a server whether it is well, and shows that promises hold on it', async (t) => {
  const { url, sluice } = await startServer(t)
  const well = await runCli(t, ['verify', url])
  assert.equal(well.code, 0, well.stderr)
  assert.match(well.stdout, /durability: 'memory', one copy/)
  const suite = await runCli(t, ['verify', url, '--suite', '--grep', 'a job '])
  assert.equal(suite.code, 0, suite.stdout)
  assert.match(suite.stdout, /ok {5}a job says why it waits/)
  assert.match(suite.stdout, /^\d+ scenarios hold, 0 do not/m)
  const names = (await sluice.stats()).topics.map(({ name }) => name)
  assert.ok(names.length > 0 && names.every((name) => /^verify-[0-9a-f]{8}-/.test(name)), names.join())
  const gone = await runCli(t, ['verify', 'http://127.0.0.1:9'])
  assert.equal(gone.code, 1)
})

test('a backup over the engine of another machine is a file here', async (t) => {
  const root = await temporaryFolder(t)
  const { url, sluice } = await startServer(t, {}, join(root, 'data'))
  await sluice.queue('q').add('x')
  const remote = await open(url)
  t.after(() => remote.close())
  await assert.rejects(remote.backup(join(root, 'no', 'where')), (error) => isSluiceError(error, 'INVALID_OPTION'))
  const file = join(root, 'copy')
  const info = await remote.backup(file)
  assert.equal(info.messages, 1)
  await restore(file, join(root, 'restored'))
  assert.ok(existsSync(join(root, 'restored', 'sluice.db')))
})
