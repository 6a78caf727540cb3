import Crypto
import Foundation

/// The keys that secrets are sealed with where they are stored: the first seals, all of them open. Putting a new key first
/// and keeping the old ones behind it is how keys are rotated.
///
/// AES-256-GCM with a random nonce. A value of this type never shows a key when printed, dumped or mirrored.
package struct Keyring: Sendable {
  package static let keyBytes = 32
  package static let keyLimit = 16

  private struct Key: Sendable {
    let id: String
    let key: SymmetricKey
  }

  private let keys: [Key]

  /// Without a key: seals nothing and opens nothing.
  package init() { keys = [] }

  /// - Parameter texts: each the base64 of 32 bytes; the first one seals.
  package init(parsing texts: [String]) throws(KeyringError) {
    guard texts.count <= Self.keyLimit else { throw KeyringError("there are more than \(Self.keyLimit) keys") }
    var keys: [Key] = []
    for (index, text) in texts.enumerated() {
      guard let bytes = Data(base64Encoded: text) else {
        throw KeyringError("key \(index + 1) is not base64; `martlet secret new-key` makes one")
      }
      guard bytes.count == Self.keyBytes else {
        throw KeyringError(
          "key \(index + 1) has \(bytes.count) bytes instead of \(Self.keyBytes); `martlet secret new-key` makes one"
        )
      }
      guard Set(bytes).count > 1 else { throw KeyringError("key \(index + 1) is one byte, repeated") }
      let key = Key(id: Self.id(of: bytes), key: SymmetricKey(data: bytes))
      guard !keys.contains(where: { $0.id == key.id }) else { throw KeyringError("key \(index + 1) is there twice") }
      keys.append(key)
    }
    self.keys = keys
  }

  package var isEmpty: Bool { keys.isEmpty }

  /// The id of the key that seals; nil if there is none.
  package var sealingKeyID: String? { keys.first?.id }

  /// The ids of all keys, the one that seals first.
  package var keyIDs: [String] { keys.map(\.id) }

  /// A new key from the system's secure random generator, in base64.
  package static func newKey() -> String {
    SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }.base64EncodedString()
  }

  /// Seals a text under the first key, for one use: sealed for an endpoint, it opens for that endpoint only.
  package func seal(_ text: String, for use: SealedUse) throws(SealingError) -> String {
    guard let first = keys.first else { throw .noKey }
    do {
      let box = try AES.GCM.seal(Data(text.utf8), using: first.key, authenticating: use.associatedData)
      // There is a combined form whenever the nonce has its standard length, as here.
      guard let bytes = box.combined else { throw SealingError.noKey }
      return SealedText(keyID: first.id, bytes: bytes).description
    } catch let error as SealingError {
      throw error
    } catch {
      throw .doesNotOpen(keyID: first.id)
    }
  }

  /// What is stored, in plain: opens it if it is sealed, and returns it as it is if not.
  package func open(_ stored: String, for use: SealedUse) throws(SealingError) -> String {
    guard SealedText.isSealed(stored) else { return stored }
    guard let sealed = SealedText(parsing: stored) else { throw .malformed }
    guard let key = keys.first(where: { $0.id == sealed.keyID }) else { throw .unknownKey(keyID: sealed.keyID) }
    do {
      let bytes = try AES.GCM.open(
        try AES.GCM.SealedBox(combined: sealed.bytes),
        using: key.key,
        authenticating: use.associatedData
      )
      guard let text = String(data: bytes, encoding: .utf8) else { throw SealingError.malformed }
      return text
    } catch let error as SealingError {
      throw error
    } catch {
      throw .doesNotOpen(keyID: key.id)
    }
  }

  /// Whether a stored value is sealed under the first key.
  package func isSealed(_ stored: String) -> Bool {
    guard let first = keys.first else { return false }
    return SealedText(parsing: stored)?.keyID == first.id
  }

  /// The first 8 hexadecimal digits of the key's SHA-256: enough to tell keys apart, and nothing of the key.
  private static func id(of bytes: Data) -> String {
    SHA256.hash(data: bytes).prefix(4).map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }
}

extension Keyring: CustomStringConvertible, CustomReflectable {
  /// The keys' ids.
  package var description: String { "Keyring(\(keyIDs.joined(separator: " ")))" }
  package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

/// What a sealed value is for. It is authenticated with it, so a value copied to another place does not open there.
package enum SealedUse: Sendable {
  case secret(endpoint: Int64)
  case credential(kind: String, endpoint: Int64)

  fileprivate var associatedData: Data {
    switch self {
    case .secret(let endpoint): Data("martlet:v1:secret:\(endpoint)".utf8)
    case .credential(let kind, let endpoint): Data("martlet:v1:credential:\(kind):\(endpoint)".utf8)
    }
  }
}

/// Why keys cannot be used. Contains nothing of them.
package struct KeyringError: Error, Equatable, CustomStringConvertible {
  package let description: String
  init(_ description: String) { self.description = description }
}

/// Why a value does not open. Contains nothing of it.
package enum SealingError: Error, Equatable, CustomStringConvertible {
  case noKey
  case malformed
  case unknownKey(keyID: String)
  case doesNotOpen(keyID: String)

  package var description: String {
    switch self {
    case .noKey: "there is no key to seal with"
    case .malformed: "it is not a sealed value that this version of martlet can read"
    case .unknownKey(let id):
      "it is sealed under key \(id), which this martlet was not given (MARTLET_SECRET_KEY or --secret-key-file)"
    case .doesNotOpen(let id):
      "it does not open with key \(id): it was changed, or was sealed for another endpoint"
    }
  }
}
