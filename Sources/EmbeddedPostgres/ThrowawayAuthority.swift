import Foundation

/// A certificate authority of two days and a server certificate that it signed for localhost.
struct ThrowawayAuthority: Sendable {
  let caFile: URL
  let certificateFile: URL
  let keyFile: URL

  /// Made by the `openssl` program. The authority's own key is removed at once: it never signs again.
  static func make(in directory: URL, tools: ToolRunner) async throws -> ThrowawayAuthority {
    let file = { (name: String) in directory.appendingPathComponent(name) }
    let (caKey, request, extensions) = (file("ca.key"), file("server.csr"), file("server.ext"))
    let authority = ThrowawayAuthority(
      caFile: file("ca.pem"),
      certificateFile: file("server.pem"),
      keyFile: file("server.key")
    )
    let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try await tools.run(
      ["openssl", "req", "-x509", "-days", "2", "-subj", "/CN=Martlet throwaway authority"] + newKey + [
        "-addext", "keyUsage=critical,keyCertSign", "-keyout", caKey.path, "-out", authority.caFile.path,
      ]
    )
    try await tools.run(
      ["openssl", "req", "-subj", "/CN=localhost"] + newKey + [
        "-keyout", authority.keyFile.path, "-out", request.path,
      ]
    )
    try Data("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n".utf8).write(to: extensions)
    try await tools.run([
      "openssl", "x509", "-req", "-days", "2", "-in", request.path, "-CA", authority.caFile.path,
      "-CAkey", caKey.path, "-set_serial", "2", "-extfile", extensions.path,
      "-out", authority.certificateFile.path,
    ])
    for scrap in [caKey, request, extensions] { try FileManager.default.removeItem(at: scrap) }
    guard chmod(authority.keyFile.path, 0o600) == 0 else {
      throw EmbeddedPostgresError.systemCall("chmod \(authority.keyFile.path)", errno: errno)
    }
    return authority
  }
}
