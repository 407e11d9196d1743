package authority

// NewMemory is the Store that New uses by itself.
func NewMemory() Store { return newMemory() }

// StoreID is the id under which a Store holds the organisation of a key.
func StoreID(key string) string {
	id, _, _ := digest(key)
	return id
}

// StoreProof is what the Record of a key's organisation holds beside it.
func StoreProof(key string) string {
	_, proof, _ := digest(key)
	return proof
}

// Listeners counts the organisations that somebody listens to.
func Listeners(a *Authority) int {
	a.hints.mu.Lock()
	defer a.hints.mu.Unlock()
	return len(a.hints.subs)
}

// ErrorCodes are all the words that an Error may have.
func ErrorCodes() []string {
	return []string{
		codeInvalidOrgKey, codeOrgNotFound, codeUnavailable, codeMissingParams, codeInvalidParams,
		codeInvalidDeviceID, codeInvalidScope, codeInvalidPlan, codeTooManyDevices, codeInvalidJSON,
		codeNotFound, codeMethodNotAllowed, codeBodyTooLarge, codeUnsupportedMedia,
	}
}

// ErrorStatus and ResultStatus are the tables of status.go.
var (
	ErrorStatus  = errorStatus
	ResultStatus = resultStatus
)
