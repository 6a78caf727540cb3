import Foundation
import Testing
import WebhookSignature

/// The Python reference library and Svix's, from PyPI, against this one. Needs Python 3 and a network, so it runs only
/// where `MARTLET_PEERS=1` asks for it; the vectors prove the same offline.
@Suite(
  .enabled(
    if: ProcessInfo.processInfo.environment["MARTLET_PEERS"] == "1",
    "set MARTLET_PEERS=1 to compare with the Python packages standardwebhooks and svix"
  )
)
struct PeerTests {
  struct Case: Codable {
    var secret: String
    var headers: [String: String]
    var body: String
  }

  struct PeerAnswer: Decodable {
    var peer: String
    var accepted: Bool
    var acceptedTampered: Bool
    var signature: String
  }

  @Test func peersAcceptOurSignaturesAndWeAcceptTheirs() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "martlet-peers-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let python = try makePython(in: folder)

    let timestamp = Int(Date().timeIntervalSince1970)
    let bodies = ["{}", #"{"type":"a.b","data":{"text":"ŝanĝo 🕊 \u2028"}}"#, "", String(repeating: "x", count: 10_000)]
    let cases = bodies.enumerated().map { index, body in
      let keys = [SigningKey.generate(), .generate(), .generateEd25519()]
      let list = WebhookSigner(keys: keys).headers(id: "msg_\(index)", timestamp: timestamp, body: Array(body.utf8))
      return Case(
        secret: keys[1].encoded,
        headers: Dictionary(uniqueKeysWithValues: list.map { ($0.name, $0.value) }),
        body: body
      )
    }
    let script = folder.appending(path: "peers.py")
    try Data(Self.script.utf8).write(to: script)
    let input = folder.appending(path: "cases.json")
    try JSONEncoder().encode(cases).write(to: input)

    let answers = try JSONDecoder().decode([[PeerAnswer]].self, from: run(python, [script.path, input.path]))
    #expect(answers.count == cases.count)
    for (sent, answers) in zip(cases, answers) {
      #expect(answers.map(\.peer) == ["standardwebhooks", "svix"])
      let verifier = WebhookVerifier(keys: [try VerificationKey(parsing: sent.secret)])
      for answer in answers {
        #expect(answer.accepted && !answer.acceptedTampered, "\(answer.peer)")
        var headers = sent.headers
        headers["webhook-signature"] = answer.signature
        try verifier.verify(
          headers: headers,
          body: Array(sent.body.utf8),
          now: Date(timeIntervalSince1970: Double(timestamp))
        )
      }
    }
  }

  private func makePython(in folder: URL) throws -> URL {
    let venv = folder.appending(path: "venv")
    _ = try run(URL(filePath: "/usr/bin/env"), ["python3", "-m", "venv", venv.path])
    let python = venv.appending(path: "bin/python")
    _ = try run(python, ["-m", "pip", "install", "--quiet", "standardwebhooks", "svix"])
    return python
  }

  private func run(_ program: URL, _ arguments: [String]) throws -> Data {
    let process = Process()
    process.executableURL = program
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(program.lastPathComponent) \(arguments.first ?? "")")
    return data
  }

  private static let script = """
    import datetime, json, sys
    import standardwebhooks.webhooks, svix.webhooks

    def accepts(peer, body, headers):
        try:
            peer.verify(body, headers)
        except (standardwebhooks.webhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError):
            return False
        except json.JSONDecodeError:
            pass  # verified, and then parsed: not every body here is JSON
        return True

    answers = []
    for case in json.load(open(sys.argv[1])):
        headers, body = case["headers"], case["body"]
        at = datetime.datetime.fromtimestamp(int(headers["webhook-timestamp"]), datetime.timezone.utc)
        answers.append([])
        for module in (standardwebhooks, svix):
            peer = module.webhooks.Webhook(case["secret"])
            answers[-1].append({
                "peer": module.__name__,
                "accepted": accepts(peer, body, headers),
                "acceptedTampered": accepts(peer, body + "x", headers),
                "signature": peer.sign(headers["webhook-id"], at, body),
            })
    print(json.dumps(answers))
    """
}
