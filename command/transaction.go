package command

var transactionRows = []Row{}
