// Runs editors/vscode/extension.js with a small stand-in for VS Code, on a recipe, against `pem lsp`.
"use strict";
const child_process = require("child_process");
const Module = require("module");
const path = require("path");

const [extension, folder, ...command] = process.argv.slice(2);
const text = 'adapter a = "a"\nlet x = a + aa\nsave a to "out/x"\n';
const providers = {};
const shown = new Map();
const languages = [];
const servers = [];
const messages = [];
const made = (...names) => Object.fromEntries(names.map((name) => [name, class { constructor(...args) { this.args = args; } }]));
const document = (name, first, languageId) => ({
  fileName: path.join(folder, name), languageId, version: 1,
  uri: { toString: () => `file://${path.join(folder, name)}`, fsPath: path.join(folder, name) },
  getText: () => first, lineAt: () => ({ text: first.split("\n")[0] }),
});
const recipe = document("recipe.pem", text, "pem");
let listening = 0;
const disposable = (dispose = () => {}) => (listening++, { dispose: () => (listening--, dispose()) });
const event = () => disposable();
const vscode = {
  ...made("Position", "Range", "Location", "TextEdit", "Diagnostic", "CompletionItem", "MarkdownString",
    "SignatureHelp", "SignatureInformation", "ParameterInformation", "CodeAction", "InlayHint", "Hover",
    "CodeLens", "SemanticTokens", "SemanticTokensLegend"),
  WorkspaceEdit: class { constructor() { this.edits = []; } set(uri, edits) { this.edits.push([uri, edits]); } },
  CodeActionKind: { QuickFix: "quickfix" },
  Uri: { parse: (uri) => uri },
  languages: new Proxy({
    createDiagnosticCollection: () => ({ set: (uri, some) => shown.set(uri, some), ...disposable(() => shown.clear()) }),
    setTextDocumentLanguage: (doc, language) => languages.push([path.basename(doc.fileName), language]),
  }, { get: (own, name) => own[name] || ((_, provider) => { providers[name] = provider; return disposable(() => delete providers[name]); }) }),
  workspace: {
    workspaceFolders: [{ uri: { toString: () => `file://${folder}`, fsPath: folder }, name: "open" }],
    getConfiguration: () => ({ get: () => command }),
    textDocuments: [recipe, document("merge.pem", "language 1\n", "plaintext"),
      document("cert.pem", "-----BEGIN CERTIFICATE-----\n", "plaintext")],
    onDidOpenTextDocument: event, onDidChangeTextDocument: event, onDidSaveTextDocument: event, onDidCloseTextDocument: event,
  },
  window: { showErrorMessage: (message) => messages.push(message) },
};
const spawn = child_process.spawn;
child_process.spawn = (...args) => { servers.push(spawn(...args)); return servers.at(-1); };
const load = Module._load;
Module._load = (name, ...rest) => (name === "vscode" ? vscode : load(name, ...rest));

async function main() {
  const { activate, deactivate } = require(extension);
  activate({ subscriptions: [] });
  const until = async (reached) => { while (!reached()) await new Promise((go) => setTimeout(go, 10)); };
  const answered = () => Object.keys(providers).length >= 11 && shown.size > 0;
  await until(() => answered() || messages.length > 0);
  if (messages.length > 0) return console.log(JSON.stringify({ messages }));
  const at = (line, character) => ({ line, character });
  const whole = { start: at(0, 0), end: at(3, 0) };
  const p = (name) => providers[name];
  const results = {
    languages,
    diagnostics: [...shown.values()][0].map((x) => x.code),
    hover: (await p("registerHoverProvider").provideHover(recipe, at(1, 8))).args[0].args[0],
    completion: (await p("registerCompletionItemProvider").provideCompletionItems(recipe, at(1, 8))).length,
    signature: await p("registerSignatureHelpProvider").provideSignatureHelp(recipe, at(1, 8)),
    definition: (await p("registerDefinitionProvider").provideDefinition(recipe, at(1, 8))).args[0],
    references: (await p("registerReferenceProvider").provideReferences(recipe, at(1, 8), { includeDeclaration: true })).length,
    rename: (await p("registerRenameProvider").provideRenameEdits(recipe, at(1, 8), "c")).edits[0][1].length,
    refused: await p("registerRenameProvider").provideRenameEdits(recipe, at(1, 8), "x").catch((error) => error.message),
    formatting: (await p("registerDocumentFormattingEditProvider").provideDocumentFormattingEdits(recipe)).length,
    actions: (await p("registerCodeActionsProvider").provideCodeActions(recipe, whole)).map((x) => x.args[0]),
    hints: (await p("registerInlayHintsProvider").provideInlayHints(recipe, whole)).map((x) => x.args[1]),
    lenses: (await p("registerCodeLensProvider").provideCodeLenses(recipe)).map((x) => x.args[1].title),
    tokens: (await p("registerDocumentSemanticTokensProvider").provideDocumentSemanticTokens(recipe)).args[0].length,
  };
  const listened = listening;
  while (messages.length === 0) {
    servers.at(-1).kill("SIGKILL");
    await until(() => shown.size === 0);
    await until(() => answered() || messages.length > 0);
    if (messages.length === 0) results.again = (results.again || 0) + (listening === listened);
  }
  Object.assign(results, { messages, servers: servers.length });
  await deactivate();
  console.log(JSON.stringify(results));
}

main();
