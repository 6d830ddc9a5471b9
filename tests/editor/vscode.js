// Runs editors/vscode/extension.js with a small stand-in for VS Code, on a recipe, against `pem lsp`.
"use strict";
const Module = require("module");
const path = require("path");

const [extension, folder, python] = process.argv.slice(2);
const text = 'adapter a = "a"\nlet x = a + aa\nsave a to "out/x"\n';
const providers = {};
const shown = new Map();
const languages = [];
const made = (...names) => Object.fromEntries(names.map((name) => [name, class { constructor(...args) { this.args = args; } }]));
const document = (name, first, languageId) => ({
  fileName: path.join(folder, name), languageId, version: 1,
  uri: { toString: () => `file://${path.join(folder, name)}`, fsPath: path.join(folder, name) },
  getText: () => first, lineAt: () => ({ text: first.split("\n")[0] }),
});
const recipe = document("recipe.pem", text, "pem");
const event = () => ({ dispose() {} });
const vscode = {
  ...made("Position", "Range", "Location", "TextEdit", "Diagnostic", "CompletionItem", "MarkdownString",
    "SignatureHelp", "SignatureInformation", "ParameterInformation", "CodeAction", "InlayHint", "Hover",
    "CodeLens", "SemanticTokens", "SemanticTokensLegend"),
  WorkspaceEdit: class { constructor() { this.edits = []; } set(uri, edits) { this.edits.push([uri, edits]); } },
  CodeActionKind: { QuickFix: "quickfix" },
  Uri: { parse: (uri) => uri },
  languages: new Proxy({
    createDiagnosticCollection: () => ({ set: (uri, some) => shown.set(uri, some) }),
    setTextDocumentLanguage: (doc, language) => languages.push([path.basename(doc.fileName), language]),
  }, { get: (own, name) => own[name] || ((_, provider) => { providers[name] = provider; return {}; }) }),
  workspace: {
    workspaceFolders: [{ uri: { toString: () => `file://${folder}`, fsPath: folder }, name: "open" }],
    getConfiguration: () => ({ get: () => [python, "-m", "pemlang", "lsp"] }),
    textDocuments: [recipe, document("merge.pem", "language 1\n", "plaintext"),
      document("cert.pem", "-----BEGIN CERTIFICATE-----\n", "plaintext")],
    onDidOpenTextDocument: event, onDidChangeTextDocument: event, onDidSaveTextDocument: event, onDidCloseTextDocument: event,
  },
  window: { showErrorMessage: (message) => { console.error(message); process.exit(1); } },
};
const load = Module._load;
Module._load = (name, ...rest) => (name === "vscode" ? vscode : load(name, ...rest));

async function main() {
  const { activate, deactivate } = require(extension);
  activate({ subscriptions: [] });
  const until = async (reached) => { while (!reached()) await new Promise((go) => setTimeout(go, 10)); };
  await until(() => Object.keys(providers).length >= 11 && shown.size > 0);
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
  await deactivate();
  console.log(JSON.stringify(results));
}

main();
