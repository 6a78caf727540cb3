import Foundation
import Testing

@testable import SecretSealing

@Suite struct KeyringTests {
  private let old = Data(0..<32).base64EncodedString()
  private let new = Data(32..<64).base64EncodedString()

  @Test func whatIsSealedOpensAgainAndShowsNothing() throws {
    let keyring = try Keyring(parsing: [old])
    for text in ["whsec_c2VjcmV0", "", "{\"token\": \"ü\"}", String(repeating: "x", count: 100_000)] {
      let sealed = try keyring.seal(text, for: .secret(endpoint: 7))
      #expect(sealed.hasPrefix("sealed:v1:\(keyring.sealingKeyID!):"))
      #expect(text.isEmpty || !sealed.contains(text))
      #expect(try keyring.open(sealed, for: .secret(endpoint: 7)) == text)
      // A nonce of its own each time.
      #expect(try keyring.seal(text, for: .secret(endpoint: 7)) != sealed)
    }
  }

  /// The first 8 digits of `printf '\x00…\x1f' | sha256sum`.
  @Test func keyIDIsTheBeginningOfItsHash() throws {
    #expect(try Keyring(parsing: [old]).keyIDs == ["630dcd29"])
  }

  @Test func plainTextIsReturnedAsItIs() throws {
    for keyring in [Keyring(), try Keyring(parsing: [old])] {
      #expect(try keyring.open("whsec_c2VjcmV0", for: .secret(endpoint: 1)) == "whsec_c2VjcmV0")
    }
  }

  @Test func allKeysOpenAndTheFirstSeals() throws {
    let before = try Keyring(parsing: [old])
    let during = try Keyring(parsing: [new, old])
    let after = try Keyring(parsing: [new])
    let use = SealedUse.credential(kind: "basic", endpoint: 1)
    let sealed = try before.seal("a", for: use)
    #expect(try during.open(sealed, for: use) == "a")
    #expect(!during.isSealed(sealed) && before.isSealed(sealed))
    #expect(throws: SealingError.unknownKey(keyID: before.sealingKeyID!)) { try after.open(sealed, for: use) }
    #expect(try after.open(during.seal("b", for: use), for: use) == "b")
  }

  @Test func aValueOpensInItsPlaceOnly() throws {
    let keyring = try Keyring(parsing: [old])
    let sealed = try keyring.seal("a", for: .credential(kind: "basic", endpoint: 1))
    for use: SealedUse in [
      .credential(kind: "basic", endpoint: 2), .credential(kind: "bearer", endpoint: 1), .secret(endpoint: 1),
      .credential(kind: "basic", endpoint: 11),
    ] {
      #expect(throws: SealingError.doesNotOpen(keyID: keyring.sealingKeyID!)) { try keyring.open(sealed, for: use) }
    }
  }

  @Test func everyChangedByteIsFound() throws {
    let keyring = try Keyring(parsing: [old])
    let sealed = try keyring.seal("whsec_c2VjcmV0", for: .secret(endpoint: 1))
    let parts = sealed.split(separator: ":").map(String.init)
    var bytes = try #require(Data(base64Encoded: parts[3]))
    for index in bytes.indices {
      bytes[index] ^= 1
      let changed = "sealed:v1:\(parts[2]):\(bytes.base64EncodedString())"
      #expect(throws: SealingError.doesNotOpen(keyID: parts[2])) {
        try keyring.open(changed, for: .secret(endpoint: 1))
      }
      bytes[index] ^= 1
    }
    for length in [0, 1, 12, 27] {
      let short = "sealed:v1:\(parts[2]):\(bytes.prefix(length).base64EncodedString())"
      #expect(throws: SealingError.self) { try keyring.open(short, for: .secret(endpoint: 1)) }
    }
  }

  @Test(arguments: [
    "sealed:", "sealed:v1", "sealed:v2:630dcd29:AAAA", "sealed:v1:630dcd29:*", "sealed:v1:630dcd2:AAAA",
    "sealed:v1:630dcd29:AAAA:", "sealed:whsec_AAAA",
  ])
  func whatOnlyBeginsLikeASealedValueIsNotTakenForPlainText(text: String) throws {
    let keyring = try Keyring(parsing: [old])
    #expect(throws: SealingError.malformed) { try keyring.open(text, for: .secret(endpoint: 1)) }
  }

  @Test func badKeysAreRefusedWithoutBeingRepeated() throws {
    let short = Data(1...31).base64EncodedString()
    for (keys, words) in [
      (["geheim!"], "not base64"), ([short], "31 bytes"), ([old, "geheim!"], "key 2 is not base64"),
      ([old, old], "twice"), ([""], "0 bytes"), ([Data(count: 32).base64EncodedString()], "one byte, repeated"),
      (Array(repeating: old, count: 17), "more than 16"),
    ] {
      let error = #expect(throws: KeyringError.self) { try Keyring(parsing: keys) }
      #expect(error?.description.contains(words) == true, "\(words)")
      #expect(error?.description.contains("geheim") == false && error?.description.contains(short) == false)
    }
    #expect(throws: SealingError.noKey) { try Keyring().seal("a", for: .secret(endpoint: 1)) }
  }

  @Test func aKeyringShowsIDsOnly() throws {
    let keyring = try Keyring(parsing: [old, new])
    var dumped = ""
    dump(keyring, to: &dumped)
    let shown = "\(keyring) \(String(reflecting: keyring)) \(dumped)"
    #expect(shown.contains("630dcd29"))
    #expect(!shown.contains(old) && !shown.contains("SymmetricKey"))
  }

  @Test func newKeysDifferAndWork() throws {
    let keys = (0..<10).map { _ in Keyring.newKey() }
    #expect(Set(keys).count == 10)
    #expect(try Keyring(parsing: keys).keyIDs.count == 10)
  }

  // MARK: - Where keys come from

  @Test func theEnvironmentHasKeysSeparatedByCommas() throws {
    func load(_ text: String?) throws -> [String] {
      try Keyring.load(file: nil, environment: text.map { ["MARTLET_SECRET_KEY": $0] } ?? [:]) { _ in }.keyIDs
    }
    #expect(try load(nil).isEmpty)
    #expect(try load(old) == ["630dcd29"])
    #expect(try load(" \(new) , \(old)\n").count == 2)
    for text in ["", " ", ",", "x", "\(old),x"] { #expect(throws: KeyringError.self) { try load(text) } }
  }

  @Test func aFileHasAKeyALineAndIsBestReadByFew() throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-key-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: file) }
    func load(_ text: String, mode: Int = 0o600) throws -> (ids: [String], warnings: Int) {
      try text.write(toFile: file, atomically: true, encoding: .utf8)
      try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
      var warnings = 0
      // The file wins over the environment.
      let keyring = try Keyring.load(file: file, environment: ["MARTLET_SECRET_KEY": "x"]) { _ in warnings += 1 }
      return (keyring.keyIDs, warnings)
    }
    let both = try load("# the new one\r\n\(new)\r\n\n  # the old one\n\(old)\n")
    #expect(try both.ids == Keyring(parsing: [new, old]).keyIDs && both.warnings == 0)
    #expect(try load(old, mode: 0o644).warnings == 1)
    for text in ["", "# nothing\n", "x\n"] { #expect(throws: KeyringError.self) { try load(text) } }
    #expect(throws: KeyringError.self) { try Keyring.load(file: file + "-missing", environment: [:]) { _ in } }
  }
}
