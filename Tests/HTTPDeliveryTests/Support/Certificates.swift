import Foundation

/// Certificates made with the openssl command.
struct Certificates {
  enum Kind: String, CaseIterable {
    case valid, expired, wrongHost, selfSigned
  }

  let directory: URL
  var authorityFile: String { path("ca.pem") }

  init(in directory: URL) async throws {
    self.directory = directory
    try await openssl(
      ["req", "-x509", "-subj", "/CN=Martlet Test CA", "-days", "2", "-out", path("ca.pem")] + key("ca.key")
    )
  }

  func make(_ kind: Kind) async throws -> (certificate: String, key: String) {
    let (certificate, keyFile) = (path("server.pem"), path("server.key"))
    let name = kind == .wrongHost ? "elsewhere.test" : "localhost"
    if kind == .selfSigned {
      try await openssl(
        [
          "req", "-x509", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-out",
          certificate,
        ] + key("server.key")
      )
      return (certificate, keyFile)
    }
    try await openssl(["req", "-new", "-subj", "/CN=\(name)", "-out", path("server.csr")] + key("server.key"))
    try "subjectAltName=DNS:\(name)".write(toFile: path("server.ext"), atomically: true, encoding: .utf8)
    try await openssl([
      "x509", "-req", "-in", path("server.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial",
      "-extfile", path("server.ext"), "-days", kind == .expired ? "-1" : "2", "-out", certificate,
    ])
    return (certificate, keyFile)
  }

  /// A client's certificate, signed by the same authority.
  func makeClient(_ name: String) async throws -> (certificate: String, key: String) {
    try await openssl(["req", "-new", "-subj", "/CN=\(name)", "-out", path("\(name).csr")] + key("\(name).key"))
    try await openssl([
      "x509", "-req", "-in", path("\(name).csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial",
      "-days", "2", "-out", path("\(name).pem"),
    ])
    return try read(name)
  }

  /// The certificate and key made for a client before, as text.
  func read(_ name: String) throws -> (certificate: String, key: String) {
    (
      try String(contentsOfFile: path("\(name).pem"), encoding: .utf8),
      try String(contentsOfFile: path("\(name).key"), encoding: .utf8)
    )
  }

  private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

  /// A new key goes into the file of this name.
  private func key(_ name: String) -> [String] {
    ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path(name)]
  }

  private func openssl(_ arguments: [String]) async throws {
    let process = try ChildProcess(["openssl"] + arguments, log: directory.appendingPathComponent("openssl.log"))
    guard await process.waitUntilExit() == 0 else {
      throw ProcessError(command: "openssl " + arguments.joined(separator: " "), output: process.output)
    }
  }
}
