import { equal, rejects } from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isSluiceError, open } from '../../src/index.ts'

let root = ''
before(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-hold-'))
})
after(() => rmSync(root, { recursive: true, force: true }))

const skip = process.platform !== 'linux' && 'the second hold is for Linux'

test('a process that copies its own open folder still owns it', { skip }, async () => {
  const folder = join(root, 'copied')
  await using sluice = await open(folder)
  await sluice.queue('q').add(1)
  cpSync(folder, join(root, 'copy'), { recursive: true })
  const other = `import { open } from ${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)}
    try { await open(${JSON.stringify(folder)}); console.log('opened') } catch (error) { console.log(error.code, error.details.pid) }
    process.exit()`
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', other], {
    encoding: 'utf8',
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
  })
  equal(output, `LOCKED ${process.pid}\n`)
  equal((await (await sluice.queue('q').add(2)).status()).status, 'queued')
})

test('a folder can be opened again as soon as it is closed, and after an open that failed', async () => {
  const folder = join(root, 'again')
  for (let i = 0; i < 5; i++) {
    const sluice = await open(folder)
    await rejects(open(folder), (error) => isSluiceError(error, 'LOCKED'))
    await sluice.close()
  }
})
