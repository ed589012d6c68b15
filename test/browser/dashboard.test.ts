/** The dashboard in a real browser: signing in, what a payload may do there, and what pages of others may do here. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type BrowserContext, chromium, type Page } from 'playwright-core'
import { open, type Sluice } from '../../src/index.ts'
import { createServer } from '../../src/server/server.ts'
import { temporaryFolder } from '../server-harness.ts'
import { makeCertificate } from '../support/certificate.ts'
import { makeKey, revokeKey, type TestKey } from '../support/keys.ts'

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium'
const options = existsSync(BROWSER) ? {} : { skip: `there is no browser at ${BROWSER}; CHROMIUM names another` }

interface Desk {
  readonly url: string
  readonly sluice: Sluice
  readonly admin: TestKey
  readonly keyFile: string
  readonly context: BrowserContext
  readonly page: Page
  /** What the page complained of: errors, and what its policy refused. */
  readonly complaints: string[]
}

async function openDesk(t: TestContext, { isTls, isGuarded }: { isTls: boolean; isGuarded: boolean }): Promise<Desk> {
  const folder = await temporaryFolder(t)
  const keyFile = join(folder, 'keys.json')
  const admin = await makeKey(keyFile, ['admin'])
  const sluice = await open(':memory:')
  const server = createServer(sluice, {
    port: 0,
    ...(isGuarded ? { keys: keyFile } : {}),
    ...(isTls ? { tls: await makeCertificate(folder) } : {}),
  })
  const url = await server.listen()
  const browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox'] })
  t.after(async () => {
    await browser.close()
    await server.close()
    await sluice.close()
  })
  const context = await browser.newContext({ ignoreHTTPSErrors: isTls })
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    // A refused call is logged by the browser itself.
    if (message.type() === 'error' && !/status of 40[13]/.test(message.text())) complaints.push(message.text())
  })
  page.on('dialog', (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`)
    return dialog.dismiss()
  })
  return { url, sluice, admin, keyFile, context, page, complaints }
}

async function signIn(page: Page, key: string): Promise<void> {
  await page.getByLabel('API key').fill(key)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

for (const isTls of [true, false]) {
  test(
    `a key signs in over ${isTls ? 'https' : 'http on loopback'}; no script sees it or the cookie; signing out ends it`,
    options,
    async (t) => {
      const { url, sluice, admin, page, context, complaints } = await openDesk(t, { isTls, isGuarded: true })
      await sluice.queue('email').add(1)
      await page.goto(url)
      await page.getByLabel('API key').waitFor()
      assert.ok(!(await page.locator('#main').isVisible()))
      await signIn(page, `${admin.text.slice(0, -1)}_`)
      await page.getByRole('alert').filter({ hasText: 'not good here' }).waitFor()
      await signIn(page, admin.text)
      await page.getByRole('cell', { name: 'email' }).waitFor()
      assert.ok(!(await page.locator('#sign-in').isVisible()))
      const [cookie] = await context.cookies()
      assert.deepEqual(
        [cookie?.name, cookie?.httpOnly, cookie?.secure, cookie?.sameSite, cookie?.path],
        ['__Host-sluice', true, true, 'Strict', '/'],
      )
      assert.equal(
        await page.evaluate('document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)'),
        '{}{}',
      )
      assert.ok(!(await page.content()).includes(admin.text.slice(20)))
      // A write by the session.
      await page.getByRole('button', { name: 'Pause' }).click()
      await page.getByRole('button', { name: 'Resume' }).waitFor()
      await page.reload()
      await page.getByRole('cell', { name: 'email' }).waitFor()
      await page.getByRole('button', { name: 'Sign out' }).click()
      await page.getByLabel('API key').waitFor()
      assert.deepEqual(await context.cookies(), [])
      await page.reload()
      await page.getByLabel('API key').waitFor()
      assert.deepEqual(complaints, [])
    },
  )
}

test('a key that is revoked signs its page out by itself', options, async (t) => {
  const { url, sluice, admin, keyFile, page } = await openDesk(t, { isTls: false, isGuarded: true })
  await sluice.queue('email').add(1)
  await page.goto(url)
  await signIn(page, admin.text)
  await page.getByRole('cell', { name: 'email' }).waitFor()
  await revokeKey(keyFile, admin.id)
  await page.getByLabel('API key').waitFor()
  assert.ok(!(await page.content()).includes('email</td>'))
})

test('what stands in a payload or an error is text, whatever it says', options, async (t) => {
  const { url, sluice, page, complaints } = await openDesk(t, { isTls: false, isGuarded: false })
  const evil = '<img src=x onerror="window.hacked=1;alert(1)"><script>window.hacked=1</script>'
  const queue = sluice.queue('evil', { attempts: 1 })
  const job = await queue.add({ [evil]: evil }, { key: evil })
  const worker = queue.work(async () => {
    throw new Error(evil)
  })
  await job.result().catch(() => {})
  await worker.close()
  await page.goto(url)
  await page.getByRole('button', { name: 'Dead…' }).click()
  await page.locator('#letters pre').waitFor()
  assert.ok((await page.locator('#letters').innerText()).includes(evil))
  assert.equal(await page.locator('#letters img, #letters script').count(), 0)
  assert.equal(await page.evaluate('window.hacked'), undefined)
  assert.deepEqual(complaints, [])
  // Neither does the policy let a script of the page make markup or handlers, nor run what is not its file.
  for (const attempt of [
    "document.body.innerHTML = '<b>x</b>'",
    "document.createElement('img').setAttribute('onerror', 'window.hacked=1')",
    "document.createElement('script').text = 'window.hacked=1'",
  ]) {
    const script = `(() => { try { ${attempt}; return 'made' } catch (error) { return error.name } })()`
    assert.equal(await page.evaluate(script), 'TypeError', attempt)
  }
})

test(
  'a page of another origin can neither write here nor read, with the cookie of a session or without keys at all',
  options,
  async (t) => {
    const others = createHttpServer((_request, response) =>
      response.setHeader('content-type', 'text/html').end('<!doctype html><title>others</title>'),
    )
    await new Promise<void>((resolve) => others.listen(0, '127.0.0.1', resolve))
    t.after(() => others.close())
    const origin = `http://127.0.0.1:${(others.address() as AddressInfo).port}`
    for (const isGuarded of [true, false]) {
      const { url, sluice, admin, page, context } = await openDesk(t, { isTls: false, isGuarded })
      await sluice.queue('email').add(1)
      await page.goto(url)
      if (isGuarded) await signIn(page, admin.text)
      await page.getByRole('cell', { name: 'email' }).waitFor()
      // Another port is another origin, but the same site: the browser sends the cookie along.
      const other = await context.newPage()
      await other.goto(origin)
      const attack = (script: string) => other.evaluate(script.replaceAll('TARGET', url))
      const simple =
        "fetch('TARGET/v1/queues/email/jobs', { method: 'POST', mode: 'no-cors', credentials: 'include', body: '1' }).then(({ type }) => type, ({ name }) => name)"
      assert.equal(await attack(simple), 'opaque')
      for (const script of [
        "fetch('TARGET/v1/queues/email:pause', { method: 'POST', credentials: 'include' }).then(({ status }) => status, ({ name }) => name)",
        "fetch('TARGET/v1/queues/email/jobs', { method: 'POST', credentials: 'include', headers: { 'content-type': 'application/json' }, body: '1' }).then(({ status }) => status, ({ name }) => name)",
        "fetch('TARGET/v1/queues', { credentials: 'include' }).then((answer) => answer.text(), ({ name }) => name)",
        "fetch('TARGET/session', { method: 'DELETE', credentials: 'include' }).then(({ status }) => status, ({ name }) => name)",
      ])
        assert.equal(await attack(script), 'TypeError', script)
      const answered = other.waitForResponse((answer) => answer.url().endsWith('email:pause'))
      await attack(
        "(() => { const form = document.createElement('form'); form.method = 'post'; form.action = 'TARGET/v1/queues/email:pause'; document.body.append(form); form.submit() })()",
      )
      assert.equal((await answered).status(), 403)
      const [stats] = (await sluice.stats()).topics
      assert.deepEqual([stats?.appended, stats?.groups[0]?.paused], [1, false])
      await page.reload()
      await page.getByRole('cell', { name: 'email' }).waitFor()
    }
  },
)
