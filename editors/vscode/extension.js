// Starts `pem lsp` and hands VS Code what it answers. It needs no package of npm's.
"use strict";
const { spawn } = require("child_process");
const vscode = require("vscode");

const LANGUAGE = "pem";
const CERTIFICATE = /^\s*-----BEGIN/;
const MOST_ENDS = 5; // of a server within WITHIN before it is not started again, as in VS Code's own client
const WITHIN = 3 * 60_000; // ms

/** A language server in a process, spoken to over its standard streams. */
class Server {
  constructor(command, folder, told) {
    this.waiting = new Map();
    this.last = 0;
    this.input = Buffer.alloc(0);
    this.told = told;
    this.process = spawn(command[0], command.slice(1), { cwd: folder });
    this.ended = new Promise((resolve) => {
      this.process.on("error", (error) => resolve(error.message));
      this.process.on("exit", (code, signal) => resolve(`it ended with ${code ?? signal}`));
    });
    this.ended.then((why) => {
      for (const { reject } of this.waiting.values()) reject(new Error(why));
      this.waiting.clear();
    });
    this.process.stdin.on("error", () => {});
    this.process.stdout.on("data", (data) => this.read(data));
  }

  read(data) {
    this.input = Buffer.concat([this.input, data]);
    for (;;) {
      const end = this.input.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = Number(/content-length: *(\d+)/i.exec(this.input.toString("ascii", 0, end))[1]);
      if (this.input.length < end + 4 + length) return;
      const message = JSON.parse(this.input.toString("utf8", end + 4, end + 4 + length));
      this.input = this.input.subarray(end + 4 + length);
      const asked = message.method === undefined ? this.waiting.get(message.id) : undefined;
      if (asked !== undefined) {
        this.waiting.delete(message.id);
        if (message.error) asked.reject(new Error(message.error.message));
        else asked.resolve(message.result);
      } else if (message.method !== undefined) {
        this.told(message.method, message.params);
        if (message.id !== undefined) this.send({ id: message.id, result: null });
      }
    }
  }

  send(message) {
    const text = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }), "utf8");
    this.process.stdin.write(`Content-Length: ${text.length}\r\n\r\n`);
    this.process.stdin.write(text);
  }

  tell(method, params) {
    this.send({ method, params });
  }

  ask(method, params, token) {
    const id = ++this.last;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.send({ id, method, params });
    if (token) token.onCancellationRequested(() => this.tell("$/cancelRequest", { id }));
    return answer;
  }
}

// --- what the protocol calls things, as VS Code calls them, and back ---------------------------

const position = (x) => new vscode.Position(x.line, x.character);
const range = (x) => new vscode.Range(position(x.start), position(x.end));
const location = (x) => new vscode.Location(vscode.Uri.parse(x.uri), range(x.range));
const edit = (x) => new vscode.TextEdit(range(x.range), x.newText);
const plain = (x) => ({ line: x.line, character: x.character });
const plainRange = (x) => ({ start: plain(x.start), end: plain(x.end) });

function edits(x) {
  const made = new vscode.WorkspaceEdit();
  for (const [uri, some] of Object.entries((x && x.changes) || {}))
    made.set(vscode.Uri.parse(uri), some.map(edit));
  return made;
}

function diagnostic(x) {
  const made = new vscode.Diagnostic(range(x.range), x.message, x.severity - 1);
  made.code = x.code;
  made.source = x.source;
  return made;
}

function completion(x) {
  const label = { label: x.label, description: (x.labelDetails || {}).description };
  const made = new vscode.CompletionItem(label, x.kind - 1);
  made.filterText = x.filterText;
  made.sortText = x.sortText;
  made.insertText = x.textEdit.newText;
  made.range = range(x.textEdit.range);
  if (x.documentation) made.documentation = new vscode.MarkdownString(x.documentation.value);
  return made;
}

function signatures(x) {
  const made = new vscode.SignatureHelp();
  made.signatures = x.signatures.map((one) => {
    const signature = new vscode.SignatureInformation(one.label, one.documentation.value);
    signature.parameters = one.parameters.map(
      (each) => new vscode.ParameterInformation(each.label, each.documentation || undefined)
    );
    return signature;
  });
  made.activeSignature = 0;
  made.activeParameter = x.activeParameter ?? made.signatures[0].parameters.length; // none
  return made;
}

function action(x) {
  const made = new vscode.CodeAction(x.title, vscode.CodeActionKind.QuickFix);
  made.edit = edits(x.edit);
  made.diagnostics = x.diagnostics.map(diagnostic);
  made.isPreferred = x.isPreferred;
  return made;
}

function hint(x) {
  const made = new vscode.InlayHint(position(x.position), x.label, x.kind);
  made.tooltip = x.tooltip;
  return made;
}

// --- what VS Code asks -------------------------------------------------------------------------

function providers(server, legend) {
  const at = (document) => ({ textDocument: { uri: document.uri.toString() } });
  const ask = (method, document, more, token) =>
    server.ask(`textDocument/${method}`, { ...at(document), ...more }, token);
  const here = (document, place) => ({ position: plain(place) });
  const list = (some, made) => (some || []).map(made);
  const l = vscode.languages;
  return [
    l.registerHoverProvider(LANGUAGE, {
      async provideHover(document, place, token) {
        const told = await ask("hover", document, here(document, place), token);
        return told && new vscode.Hover(new vscode.MarkdownString(told.contents.value), range(told.range));
      },
    }),
    l.registerCompletionItemProvider(LANGUAGE, {
      provideCompletionItems: async (document, place, token) =>
        list(await ask("completion", document, here(document, place), token), completion),
    }, ..."\".([{=/:"),
    l.registerSignatureHelpProvider(LANGUAGE, {
      async provideSignatureHelp(document, place, token) {
        const told = await ask("signatureHelp", document, here(document, place), token);
        return told && signatures(told);
      },
    }, "(", ",", "="),
    l.registerDefinitionProvider(LANGUAGE, {
      async provideDefinition(document, place, token) {
        const told = await ask("definition", document, here(document, place), token);
        return told && location(told);
      },
    }),
    l.registerReferenceProvider(LANGUAGE, {
      provideReferences: async (document, place, context, token) =>
        list(await ask("references", document, { ...here(document, place), context }, token), location),
    }),
    l.registerRenameProvider(LANGUAGE, {
      provideRenameEdits: async (document, place, newName, token) =>
        edits(await ask("rename", document, { ...here(document, place), newName }, token)),
      async prepareRename(document, place, token) {
        const told = await ask("prepareRename", document, here(document, place), token);
        if (!told) throw new Error("there is no name here");
        return range(told);
      },
    }),
    l.registerDocumentFormattingEditProvider(LANGUAGE, {
      provideDocumentFormattingEdits: async (document, options, token) =>
        list(await ask("formatting", document, { options: { tabSize: 4, insertSpaces: true } }, token), edit),
    }),
    l.registerCodeActionsProvider(LANGUAGE, {
      provideCodeActions: async (document, where, _, token) =>
        list(await ask("codeAction", document, { range: plainRange(where), context: { diagnostics: [] } }, token), action),
    }),
    l.registerInlayHintsProvider(LANGUAGE, {
      provideInlayHints: async (document, where, token) =>
        list(await ask("inlayHint", document, { range: plainRange(where) }, token), hint),
    }),
    l.registerCodeLensProvider(LANGUAGE, {
      provideCodeLenses: async (document, token) =>
        list(await ask("codeLens", document, {}, token), (x) => new vscode.CodeLens(range(x.range), x.command)),
    }),
    l.registerDocumentSemanticTokensProvider(LANGUAGE, {
      async provideDocumentSemanticTokens(document, token) {
        const told = await ask("semanticTokens/full", document, {}, token);
        return new vscode.SemanticTokens(new Uint32Array(told.data));
      },
    }, new vscode.SemanticTokensLegend(legend.tokenTypes, legend.tokenModifiers)),
  ];
}

/** A `.pem` file is a recipe unless it is a certificate, whose extension is the same. */
function recognise(document) {
  const mine = document.fileName.endsWith(".pem") && document.languageId === "plaintext";
  if (mine && !CERTIFICATE.test(document.lineAt(0).text))
    vscode.languages.setTextDocumentLanguage(document, LANGUAGE);
}

/** A server that knows the open recipes, with what VS Code asks it, which is to go when it ends. */
async function start() {
  const shown = vscode.languages.createDiagnosticCollection(LANGUAGE);
  const folders = (vscode.workspace.workspaceFolders || []).map((x) => ({ uri: x.uri.toString(), name: x.name }));
  const first = (vscode.workspace.workspaceFolders || [])[0];
  const command = vscode.workspace.getConfiguration(LANGUAGE).get("command");
  const server = new Server(command, first && first.uri.fsPath, (method, params) => {
    if (method === "textDocument/publishDiagnostics")
      shown.set(vscode.Uri.parse(params.uri), params.diagnostics.map(diagnostic));
  });
  const capabilities = { general: { positionEncodings: ["utf-16"] }, workspace: { workspaceFolders: true } };
  const started = await server
    .ask("initialize", { processId: process.pid, rootUri: null, capabilities, workspaceFolders: folders })
    .catch((error) => { throw new Error(`${command.join(" ")}: ${error.message}. pip install "pemlang[lsp]"`); });
  server.tell("initialized", {});
  const item = (document) => ({ uri: document.uri.toString(), languageId: LANGUAGE, version: document.version, text: document.getText() });
  const isRecipe = (document) => document.languageId === LANGUAGE;
  const opened = (document) => isRecipe(document) && server.tell("textDocument/didOpen", { textDocument: item(document) });
  const changed = ({ document }) => {
    if (!isRecipe(document)) return;
    const { uri, version, text } = item(document);
    server.tell("textDocument/didChange", { textDocument: { uri, version }, contentChanges: [{ text }] });
  };
  const simply = (method) => (document) => {
    if (isRecipe(document)) server.tell(`textDocument/${method}`, { textDocument: { uri: document.uri.toString() } });
  };
  vscode.workspace.textDocuments.forEach(opened);
  server.disposables = [
    shown,
    vscode.workspace.onDidOpenTextDocument(opened),
    vscode.workspace.onDidChangeTextDocument(changed),
    vscode.workspace.onDidSaveTextDocument(simply("didSave")),
    vscode.workspace.onDidCloseTextDocument(simply("didClose")),
    ...providers(server, started.capabilities.semanticTokensProvider.legend),
  ];
  return server;
}

let running;
const ends = [];

/** Run a server, and another where one ends that had answered, until it ends too often. */
function run() {
  running = start().then(
    (server) => {
      server.ended.then((why) => again(server, why));
      return server;
    },
    (error) => void vscode.window.showErrorMessage(error.message)
  );
}

function again(server, why) {
  for (const each of server.disposables) each.dispose();
  if (server.stopped) return;
  ends.push(Date.now());
  if (ends.filter((time) => time > Date.now() - WITHIN).length < MOST_ENDS) run();
  else vscode.window.showErrorMessage(`pem: the language server ended ${MOST_ENDS} times: ${why}. To start it again, reload the window`);
}

function activate(context) {
  const needed = (document) => {
    recognise(document);
    if (document.languageId === LANGUAGE && !running) run();
  };
  context.subscriptions.push(vscode.workspace.onDidOpenTextDocument(needed));
  vscode.workspace.textDocuments.forEach(needed);
}

async function deactivate() {
  const server = await running;
  if (!server) return;
  server.stopped = true;
  await Promise.race([server.ask("shutdown", null).catch(() => {}), server.ended]);
  server.tell("exit", null);
}

module.exports = { activate, deactivate };
