import Foundation
import Testing

@testable import SecretSealing

/// Certificates and keys from the openssl command, in the shapes people have them.
@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/openssl"), "openssl is not installed"))
struct KeyPairCheckTests {
  private static let kinds: [(name: String, newKey: [String])] = [
    ("P-256", ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
    ("P-384", ["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]),
    ("P-521", ["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"]), ("RSA", ["rsa:2048"]), ("ed25519", ["ed25519"]),
  ]

  @Test func keysBelongToTheirOwnCertificatesInEveryForm() async throws {
    try await withFolder { folder in
      var pairs: [(name: String, certificate: String, keys: [String])] = []
      for (name, newKey) in Self.kinds {
        let (key, certificate) = (folder.path(name + ".key"), folder.path(name + ".pem"))
        try await openssl(
          ["req", "-x509", "-subj", "/CN=\(name)", "-days", "2", "-nodes", "-newkey"] + newKey + [
            "-keyout", key, "-out", certificate,
          ]
        )
        var forms = [key]
        if name != "ed25519" {
          // The older forms: RSA PRIVATE KEY, EC PRIVATE KEY, and one with its parameters before it.
          try await openssl(["pkey", "-in", key, "-traditional", "-out", key + ".old"])
          forms.append(key + ".old")
        }
        if name == "P-256" {
          try await openssl(["ecparam", "-name", "prime256v1", "-out", key + ".parameters"])
          let text = try read(key + ".parameters") + read(key + ".old")
          try text.write(toFile: key + ".both", atomically: true, encoding: .utf8)
          forms.append(key + ".both")
        }
        pairs.append((name, try read(certificate), try forms.map(read)))
      }
      for pair in pairs {
        for other in pairs {
          for key in other.keys {
            let problem = KeyPairCheck.problem(certificate: pair.certificate, privateKey: key)
            let expected = pair.name == other.name ? nil : "the private key does not belong to the (first) certificate"
            #expect(problem == expected, "\(pair.name) with a key of \(other.name): \(key.prefix(30))")
          }
        }
        // A chain: the client's own comes first.
        let authority = pairs[0].certificate
        #expect(KeyPairCheck.problem(certificate: pair.certificate + authority, privateKey: pair.keys[0]) == nil)
        if pair.name != pairs[0].name {
          #expect(KeyPairCheck.problem(certificate: authority + pair.certificate, privateKey: pair.keys[0]) != nil)
        }
        #expect(
          KeyPairCheck.problem(certificate: pair.certificate.replacing("\n", with: "\r\n"), privateKey: pair.keys[0])
            == nil
        )
      }
    }
  }

  @Test func whatIsDamagedOrNotWhatItShouldBeIsSaid() async throws {
    try await withFolder { folder in
      let (keyFile, file) = (folder.path("key"), folder.path("pem"))
      try await openssl([
        "req", "-x509", "-subj", "/CN=a", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt",
        "ec_paramgen_curve:prime256v1", "-keyout", keyFile, "-out", file,
      ])
      let (certificate, key) = (try read(file), try read(keyFile))
      try await openssl(["pkey", "-in", keyFile, "-aes256", "-passout", "pass:x", "-out", keyFile + ".encrypted"])
      let encrypted = try read(keyFile + ".encrypted")
      let lines = certificate.split(separator: "\n")
      let cut = (lines.dropLast(3) + [lines.last!]).joined(separator: "\n")
      for (certificate, key, words) in [
        ("", key, "the certificate is not PEM"), (key, key, "contains a private key"),
        (certificate, "", "the private key is not PEM"), (certificate, certificate, "the private key is not PEM"),
        (certificate, encrypted, "passphrase"), (cut, key, "damaged"),
        (certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "damaged"),
        (certificate, "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----", "not PEM"),
      ] {
        let problem = KeyPairCheck.problem(certificate: certificate, privateKey: key)
        #expect(problem?.contains(words) == true, "\(words): \(problem ?? "nil")")
      }
    }
  }

  /// Whatever the bytes, an answer and no trap.
  @Test func anyBytesGetAnAnswer() {
    var generator = SystemRandomNumberGenerator()
    for length in 0..<300 {
      var bytes = Data((0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) })
      if length > 4, length.isMultiple(of: 2) { bytes.replaceSubrange(0..<4, with: [0x30, 0x82, 0x01, 0x00]) }
      let block: (String) -> String = { "-----BEGIN \($0)-----\n\(bytes.base64EncodedString())\n-----END \($0)-----\n" }
      for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        _ = KeyPairCheck.problem(certificate: block("CERTIFICATE"), privateKey: block(label))
        _ = KeyPairCheck.problem(certificate: Self.empty, privateKey: block(label))
      }
    }
  }

  private static let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

  private func read(_ file: String) throws -> String { try String(contentsOfFile: file, encoding: .utf8) }

  private func withFolder(_ body: (URL) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try await body(folder)
  }

  private func openssl(_ arguments: [String]) async throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    let status = try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Int32, any Error>) in
      process.terminationHandler = { continuation.resume(returning: $0.terminationStatus) }
      do {
        try process.run()
      } catch {
        continuation.resume(throwing: error)
      }
    }
    try #require(status == 0, "openssl \(arguments)")
  }
}

extension URL {
  fileprivate func path(_ name: String) -> String { appendingPathComponent(name).path }
}
