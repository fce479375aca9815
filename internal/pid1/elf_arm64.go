package pid1

const elfMachine = 183 // EM_AARCH64
